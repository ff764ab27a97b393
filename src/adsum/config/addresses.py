"""The default addresses of Adsum's programs, and the networks in settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from adsum.core.address_policy import Network
from adsum.core.addresses import is_loopback_host, split_host_port
from adsum.core.errors import Invalid
from adsum.core.validation import quoted

DEFAULT_LISTEN: Final = "127.0.0.1:23786"
"""The port spells A-D-S-U-M on a phone's keys."""
DEFAULT_URL: Final = f"http://{DEFAULT_LISTEN}"
DEFAULT_GATEWAY_LISTEN: Final = "127.0.0.1:8080"
"""The address on which a gateway accepts requests."""
DEFAULT_MONITOR_LISTEN: Final = "127.0.0.1:23788"
"""The address on which a gateway serves its metrics and health."""


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
    return is_loopback_host(split_host_port(listen)[0])
