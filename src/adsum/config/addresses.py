"""The default addresses of Adsum's programs, and the validation of addresses in settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from adsum.core.address_policy import Network
from adsum.core.errors import Invalid
from adsum.core.validation import MAX_PORT, quoted, without_credentials

DEFAULT_LISTEN: Final = "127.0.0.1:23786"
"""The port spells A-D-S-U-M on a phone's keys."""
DEFAULT_URL: Final = f"http://{DEFAULT_LISTEN}"
DEFAULT_XDS_PORT: Final = 23787
"""The port on which a registry node serves xDS to gateways and gRPC clients."""
DEFAULT_XDS_LISTEN: Final = f"127.0.0.1:{DEFAULT_XDS_PORT}"
DEFAULT_GATEWAY_LISTEN: Final = "127.0.0.1:8080"
"""The address on which a gateway accepts requests."""
DEFAULT_MONITOR_LISTEN: Final = "127.0.0.1:23788"
"""The address on which a gateway serves its metrics and health."""

_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(?P<port>\d{1,5})")


def check_host_port(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is HOST:PORT; an IPv6 address stands in brackets."""
    match = _HOST_PORT.fullmatch(value)
    if match is not None and int(match["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {match['port']}")
    if match is None:
        raise Invalid(field, f"must be HOST:PORT, such as {DEFAULT_LISTEN} or [::1]:23786, not {quoted(value)}")


def check_url(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is an http:// URL without a path."""
    try:
        parts = urlsplit(value)
        complete = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise Invalid(
            field, f"must be an address such as http://10.0.0.5:23786, not {quoted(without_credentials(value))}"
        )


def parse_networks(field: str, values: Sequence[str]) -> list[Network]:
    """Parses ranges of addresses, such as 10.0.0.0/8 or fd00::/8. Raises `Invalid`."""
    networks = []
    for value in values:
        try:
            networks.append(ipaddress.ip_network(value))
        except ValueError:
            raise Invalid(field, f"must be a network such as 10.0.0.0/8 or fd00::/8, not {quoted(value)}") from None
    return networks


def is_loopback(listen: str) -> bool:
    """Returns whether only this host can reach the HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
