"""The address policy: addresses that probes, and registrations, may not use.

A client that may register an instance can make the registry connect to its address. So addresses that never belong to
an instance are denied, above all those where a cloud serves credentials. Private and loopback addresses are usual for
instances, and documentation ranges (RFC 5737, RFC 3849) lead nowhere: both are allowed unless the operator denies them.
A registry that listens on a network denies loopback (see `adsum.config`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from adsum.core.addresses import is_ipv4_address
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
"""Networks that no configuration can allow, each with the reason. The first network that contains an address counts."""

_COMPATIBLE: Final = IPv6Network("::/96")  # RFC 4291, 2.5.5.1
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")  # SIIT, RFC 2765
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214, 6.1: the third quarter of the address
_LOOPBACK: Final = IPv6Address("::1")
_LAST_IPV4: Final = IPv4Address("255.255.255.255")
LOOPBACK_NETWORKS: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
"""Networks that lead to the registry's own host."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Denies `ALWAYS_DENIED`, the `denied` networks, and, if `allowed` has any, all networks but those.

    Networks are written as 10.0.0.0/8 or fd00::/8. Raises `Invalid`, naming the entry, for any other text.
    """

    denied: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    _denied: tuple[Network, ...] = field(init=False, repr=False, compare=False)
    _allowed: tuple[Network, ...] = field(init=False, repr=False, compare=False)
    _range_starts: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The IPv4 addresses, as numbers, at which the reason may change: the first of each range, ascending."""
    _range_reasons: dict[int, str | None] = field(init=False, repr=False, compare=False, default_factory=dict)
    """First address of a range → why the range is denied, None if it is allowed; of the ranges that were looked up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_denied", tuple(_networks("denied", self.denied)))
        object.__setattr__(self, "_allowed", tuple(_networks("allowed", self.allowed)))
        networks = (*(network for network, _ in ALWAYS_DENIED), *self._denied, *self._allowed)
        object.__setattr__(self, "_range_starts", tuple(sorted({0, *_range_starts(networks)})))

    def denial_reason(self, ip: str) -> str | None:
        """Returns a sentence that says why this IP address is denied; None if it is allowed.

        The policy also applies to the IPv4 addresses that an IPv6 address embeds.
        """
        if is_ipv4_address(ip):  # The usual case, without the slow parser of the library.
            reason = self._ipv4_reason(int.from_bytes(map(int, ip.split("."))))
        else:
            try:
                address = ip_address(ip)
            except ValueError:
                return f"{quoted(ip)} is not an IP address"
            reason = self._reason(address)
        return f"{ip} {reason}" if reason is not None else None

    def _ipv4_reason(self, number: int) -> str | None:
        start = self._range_starts[bisect_right(self._range_starts, number) - 1]
        reasons = self._range_reasons
        if start not in reasons:
            reasons[start] = self._reason(IPv4Address(start))
        return reasons[start]

    def _reason(self, address: Address) -> str | None:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if self._allowed and not _within(address, self._allowed):
            return "is not in the networks that checks may go to"
        for target in (address, *_embedded(address)):
            reason = self._denial(target)
            if reason is not None:
                return reason if target is address else f"stands for {target}, which {reason}"
        return None

    def _denial(self, address: Address) -> str | None:
        for network, reason in ALWAYS_DENIED:
            if address in network:
                return reason
        return "is in a network that checks may not go to" if _within(address, self._denied) else None


def _range_starts(networks: Iterable[Network]) -> Iterator[int]:
    """Yields the first IPv4 address of each network, and the first one after it, as numbers."""
    for network in networks:
        if isinstance(network, IPv4Network):
            yield int(network.network_address)
            if network.broadcast_address != _LAST_IPV4:
                yield int(network.broadcast_address) + 1


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: Address) -> list[IPv4Address]:
    """Returns the IPv4 addresses to which a translator or tunnel forwards this address."""
    if isinstance(address, IPv4Address):
        return []
    found = [embedded for embedded in (address.sixtofour, *(address.teredo or ())) if embedded is not None]
    translated = _within(address, (*_NAT64, _TRANSLATED)) or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP
    if (address in _COMPATIBLE and address != _LOOPBACK) or translated:
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return found


def _networks(name: str, texts: Iterable[str]) -> Iterable[Network]:
    for position, text in enumerate(texts):
        try:
            network = ip_network(text)
        except ValueError:
            problem = f"must be a network such as 10.0.0.0/8 or fd00::/8, without host bits, not {quoted(text)}"
            raise Invalid(f"{name}[{position}]", problem) from None
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise Invalid(f"{name}[{position}]", f"must be written as an IPv4 network, not {quoted(text)}")
        yield network
