"""The fence: where probes, and registrations, may not go.

Anybody who may register an instance can make the registry connect to its address. So addresses that are never an
instance are out of bounds, above all those under which a cloud hands out credentials. Private and loopback addresses
are where instances live, and documentation ranges (RFC 5737, RFC 3849) lead nowhere: both are within bounds unless the
operator's own ranges say otherwise. A registry that listens on a network denies loopback (see `adsum.config.serve`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import quoted

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_METADATA: Final = "is where a cloud keeps its instances' credentials"
_LINK_LOCAL: Final = "is link-local, where clouds keep their instances' credentials"

ALWAYS_DENIED: Final[tuple[tuple[Network, str], ...]] = (
    (IPv4Network("0.0.0.0/8"), "is unspecified"),
    (IPv4Network("100.100.100.200/32"), _METADATA),  # Alibaba
    (IPv4Network("168.63.129.16/32"), _METADATA),  # Azure
    (IPv4Network("169.254.0.0/16"), _LINK_LOCAL),
    (IPv4Network("192.0.0.0/24"), "is reserved for protocols"),  # RFC 6890; Oracle's metadata
    (IPv4Network("224.0.0.0/4"), "is multicast"),
    (IPv4Network("255.255.255.255/32"), "is broadcast"),
    (IPv4Network("240.0.0.0/4"), "is reserved"),
    (IPv6Network("::/128"), "is unspecified"),
    (IPv6Network("fd00:ec2::/32"), _METADATA),  # Amazon
    (IPv6Network("fd20:ce::254/128"), _METADATA),  # Google
    (IPv6Network("fe80::/10"), _LINK_LOCAL),
    (IPv6Network("ff00::/8"), "is multicast"),
)
"""What no configuration opens, and why. The first that contains an address names the reason."""

_COMPATIBLE: Final = IPv6Network("::/96")  # RFC 4291, 2.5.5.1
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")  # SIIT, RFC 2765
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214, 6.1: the third quarter of the address
_LOOPBACK: Final = IPv6Address("::1")
LOOPBACK_NETWORKS: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
"""Where the registry's own host is reached by itself alone."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The bounds: what is never an instance, the `denied` networks, and all but the `allowed` ones if there are any.

    Networks are written as 10.0.0.0/8 or fd00::/8; one that is not raises `Invalid`, naming its place.
    """

    denied: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    _denied: tuple[Network, ...] = field(init=False, repr=False, compare=False)
    _allowed: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_denied", tuple(_networks("denied", self.denied)))
        object.__setattr__(self, "_allowed", tuple(_networks("allowed", self.allowed)))

    def denial_reason(self, ip: str) -> str | None:
        """Why nobody may go to this IP address, in a sentence; None if one may.

        An IPv6 address that stands for an IPv4 one is also judged as what it stands for.
        """
        try:
            address = ip_address(ip)
        except ValueError:
            return f"{quoted(ip)} is not an IP address"
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if self._allowed and not _within(address, self._allowed):
            return f"{ip} is not in the networks that checks may go to"
        for each in (address, *_embedded(address)):
            why = self._forbidden(each)
            if why is not None:
                return f"{ip} {why}" if each is address else f"{ip} stands for {each}, which {why}"
        return None

    def _forbidden(self, address: Address) -> str | None:
        for network, why in ALWAYS_DENIED:
            if address in network:
                return why
        return "is in a network that checks may not go to" if _within(address, self._denied) else None


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that a translator or tunnel would take this one to."""
    if isinstance(address, IPv4Address):
        return []
    found = [each for each in (address.sixtofour, *(address.teredo or ())) if each is not None]
    translated = _within(address, (*_NAT64, _TRANSLATED)) or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP
    if (address in _COMPATIBLE and address != _LOOPBACK) or translated:
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return found


def _networks(name: str, texts: Iterable[str]) -> Iterable[Network]:
    for place, text in enumerate(texts):
        try:
            network = ip_network(text)
        except ValueError:
            problem = f"must be a network such as 10.0.0.0/8 or fd00::/8, without host bits, not {quoted(text)}"
            raise Invalid(f"{name}[{place}]", problem) from None
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise Invalid(f"{name}[{place}]", f"must be written as an IPv4 network, not {quoted(text)}")
        yield network
