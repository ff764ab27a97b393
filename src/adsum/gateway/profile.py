"""The shape of a gateway: what it says of itself when it asks for its resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, get_type_hints

from adsum.core import validation
from adsum.core.addresses import is_ip_address
from adsum.core.errors import Invalid
from adsum.core.validation import MAX_PORT, quoted

MAX_LISTENERS: Final = 8
MAX_TRUSTED_HOPS: Final = 16
ACCESS_LOG_FORMATS: Final = ("json", "text", "off")
MAX_FILE_PATH_LENGTH: Final = 1024

HEALTH_PROBE_AGENT: Final = "adsum-gateway"
"""The agent of a gateway that only asks whether a registry answers: it routes nothing, and is told of nobody."""
METADATA_KEY: Final = "adsum"
"""Under this key a node's metadata holds a gateway's shape."""

_LISTEN: Final = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<ipv4>[0-9.]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class GatewayProfile:
    """Gateways of equal shape get the same bytes.

    `listen`: addresses as IP:PORT, an IPv6 one in brackets. `tls_certificate`, `tls_key`: files at the gateway, read
    again when they are replaced; with them every listener speaks TLS. `trusted_hops`: how many proxies in front of the
    gateway are believed about X-Forwarded-For. `zone`: where it stands; its requests stay there while they can.
    `roots`: a file at the gateway with the authorities that its system trusts.
    """

    listen: tuple[str, ...]
    default_routes: bool = True
    access_log: str = "json"
    tls_certificate: str = ""
    tls_key: str = ""
    trusted_hops: int = 0
    zone: str = ""
    roots: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.listen) <= MAX_LISTENERS:
            raise Invalid("listen", f"must be 1 to {MAX_LISTENERS} addresses")
        if len(set(self.listen)) != len(self.listen):
            raise Invalid("listen", "must not repeat")
        for n, address in enumerate(self.listen):
            split_address(f"listen[{n}]", address)
        if self.access_log not in ACCESS_LOG_FORMATS:
            raise Invalid("access_log", "must be json, text or off")
        if bool(self.tls_certificate) is not bool(self.tls_key):
            raise Invalid("tls_key", "must be given together with tls_certificate")
        for name in ("tls_certificate", "tls_key", "roots"):
            value = getattr(self, name)
            validation.text(name, value, MAX_FILE_PATH_LENGTH)
            if value and not value.startswith("/"):
                raise Invalid(name, "must be the absolute path of a file")
        validation.whole_number("trusted_hops", self.trusted_hops, 0, MAX_TRUSTED_HOPS)
        validation.text("zone", self.zone)

    def metadata(self) -> dict[str, object]:
        """What a node's metadata says of this gateway; JSON values only. Defaults are left out."""
        said = {
            each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default
        }
        return {METADATA_KEY: {**said, "listen": list(self.listen)}}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> GatewayProfile:
        """The shape that a node's metadata says. Raises `Invalid` for anything else: the peer may be anybody."""
        said = metadata.get(METADATA_KEY)
        if not isinstance(said, Mapping):
            raise Invalid(METADATA_KEY, "must hold the shape of a gateway")
        listen = said.get("listen")
        if not (isinstance(listen, (list, tuple)) and all(isinstance(each, str) for each in listen)):
            raise Invalid("listen", "must be a list of addresses")
        read: dict[str, Any] = {name: _read(name, value) for name, value in said.items() if name != "listen"}
        return cls(listen=tuple(listen), **read)


def _read(name: object, value: object) -> object:
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Invalid(quoted(str(name)), "is nothing that a gateway says of itself")
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # A protobuf Struct has no whole numbers.
    if type(value) is not kind:
        raise Invalid(str(name), f"must be {_KIND_NAMES[kind]}")
    return value


def split_address(field: str, address: str) -> tuple[str, int]:
    """IP and port of a listening address. Raises `Invalid`."""
    parts = _LISTEN.fullmatch(address)
    if parts is not None and int(parts["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {parts['port']}")
    if parts is None or not is_ip_address(parts["ipv6"] or parts["ipv4"]):
        raise Invalid(field, f"must be IP:PORT, an IPv6 address in brackets, not {quoted(address)}")
    return parts["ipv6"] or parts["ipv4"], int(parts["port"])


_KINDS: Final[Mapping[str, type]] = {
    name: kind for name, kind in get_type_hints(GatewayProfile).items() if kind in (bool, int, str)
}
_KIND_NAMES: Final[Mapping[type, str]] = {bool: "true or false", int: "a whole number", str: "a text"}
