"""The profile of a gateway: those of its settings on which its resources depend. It is sent as node metadata."""

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
"""The user agent of a gateway's health probe of a registry: the probe routes nothing and receives no resources."""
METADATA_KEY: Final = "adsum"
"""The key of a gateway's profile in its node metadata."""
PROFILE_NEEDED: Final = (
    "must be the profile of a gateway: give the bootstrap of the Envoy at least the addresses of its listeners, "
    f'`"node": {{"metadata": {{"{METADATA_KEY}": {{"listen": ["0.0.0.0:8080"]}}}}}}`'
)

_LISTEN: Final = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<ipv4>[0-9.]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class GatewayProfile:
    """The settings that a gateway's resources depend on. Gateways with equal profiles receive the same bytes.

    `listen`: addresses as IP:PORT, IPv6 addresses in brackets. `tls_certificate`, `tls_key`: files at the gateway, read
    again when they are replaced. With them, every listener uses TLS. `trusted_hops`: the number of proxies in front of
    the gateway whose X-Forwarded-For it trusts. `zone`: the gateway's zone; requests stay in it while it has capacity.
    `roots`: a file at the gateway with the certificate authorities that its system trusts.
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
        """Returns the node metadata of this gateway, as JSON values. Settings with their default are left out."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return {METADATA_KEY: {**values, "listen": list(self.listen)}}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> GatewayProfile:
        """Returns the profile in node metadata. Raises `Invalid` for any other content: the peer is not trusted."""
        profile = metadata.get(METADATA_KEY)
        if not isinstance(profile, Mapping):
            raise Invalid(METADATA_KEY, PROFILE_NEEDED)
        listen = profile.get("listen")
        if not (isinstance(listen, (list, tuple)) and all(isinstance(address, str) for address in listen)):
            raise Invalid("listen", "must be a list of addresses")
        values: dict[str, Any] = {name: _parse(name, value) for name, value in profile.items() if name != "listen"}
        return cls(listen=tuple(listen), **values)


def _parse(name: object, value: object) -> object:
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Invalid(quoted(str(name)), "is not a setting in a gateway's profile")
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # A protobuf Struct has no integers.
    if type(value) is not kind:
        raise Invalid(str(name), f"must be {_KIND_NAMES[kind]}")
    return value


def split_address(field: str, address: str) -> tuple[str, int]:
    """Returns the IP and port of a listening address. Raises `Invalid`, naming `field`."""
    parts = _LISTEN.fullmatch(address)
    if parts is not None and int(parts["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {parts['port']}")
    if parts is None or not is_ip_address(parts["ipv6"] or parts["ipv4"]):
        raise Invalid(field, f"must be IP:PORT, with an IPv6 address in brackets, not {quoted(address)}")
    return parts["ipv6"] or parts["ipv4"], int(parts["port"])


_KINDS: Final[Mapping[str, type]] = {
    name: kind for name, kind in get_type_hints(GatewayProfile).items() if kind in (bool, int, str)
}
_KIND_NAMES: Final[Mapping[type, str]] = {bool: "true or false", int: "a whole number", str: "a string"}
