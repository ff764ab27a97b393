"""Small words for protobuf's messages, which come without types."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

METADATA_NAMESPACE: Final = "adsum"
"""The namespace of our metadata in Envoy's messages."""
_LENGTH_DELIMITED: Final = 2
"""How protobuf encodes messages (protobuf.dev, "Encoding")."""


def serialize(message: Message) -> bytes:
    """The bytes of a message: the same for the same content, also where it has maps."""
    return message.SerializeToString(deterministic=True)


def encode_field(number: int, content: bytes) -> bytes:
    """A message's bytes as a field of another: what is made of such needs no copies of messages."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def duration(length: float) -> Duration:
    """A length of time."""
    whole, part = divmod(round(length * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=part * 1_000)


def any_message(message: Message) -> AnyMessage:
    """A message for a field that takes any."""
    packed = AnyMessage(value=serialize(message))
    packed.type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
    return packed


def extension(name: str, message: Message) -> Any:
    """An extension of Envoy with its configuration."""
    return TypedExtensionConfig(name=name, typed_config=any_message(message))


def socket_address(ip: str, port: int) -> Any:
    """A TCP address."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=ip, port_value=port))


def ads_source() -> Any:
    """From the stream that everything comes from."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
    )
