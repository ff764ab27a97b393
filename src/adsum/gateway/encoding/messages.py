"""Shorthands for Envoy's protobuf messages, which have no type annotations."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

METADATA_NAMESPACE: Final = "adsum"
"""The namespace of Adsum's metadata in Envoy's messages."""
_LENGTH_DELIMITED: Final = 2
"""The wire type of messages in protobuf (protobuf.dev, "Encoding")."""


def serialize(message: Message) -> bytes:
    """Returns the bytes of a message. Equal content has equal bytes, also in maps."""
    return message.SerializeToString(deterministic=True)


def encode_field(number: int, content: bytes) -> bytes:
    """Returns a message's bytes as a field of another message. It avoids a copy of the inner message."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def duration(length: float) -> Duration:
    """Returns a length of time in seconds as a message."""
    whole, part = divmod(round(length * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=part * 1_000)


def any_message(message: Message) -> AnyMessage:
    """Returns the message packed as Any."""
    packed = AnyMessage(value=serialize(message))
    packed.type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
    return packed


def extension(name: str, message: Message) -> Any:
    """Returns the configuration of one of Envoy's extensions."""
    return TypedExtensionConfig(name=name, typed_config=any_message(message))


def socket_address(ip: str, port: int) -> Any:
    """Returns a TCP address as a message."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=ip, port_value=port))


def ads_source() -> Any:
    """Returns the config source of resources that come over the aggregated discovery stream (ADS)."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
    )
