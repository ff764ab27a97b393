"""The identity of an instance: its place (address, port, scheme) and the process that is there.

An id only names an entry of the catalog. The evidence of checks, slow start and outliers belong to a process.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from adsum.core.addresses import format_host_port

DIGEST_BYTES: Final = 6
"""Bytes of a holder's digest. Consumers tell processes apart by it; it can't be used to renew or deregister."""
MAX_CACHED_IDENTITIES: Final = 65_536
"""Canonical IPv6 addresses, and digests of holders, that are cached. Past it those used longest ago are computed
again."""

DIALECT_HOLDERS: Final = frozenset({"etcd-naming"})
"""Holders under which a dialect lists the registrations of its own system. Like an empty holder, they name no
process."""

PART_SEPARATOR: Final = "~~"
"""In a holder, separates the process from a part of it, such as one of its registrars. Each part holds leases of its
own; evidence belongs to the process."""


class HostPort(NamedTuple):
    """An address and port, where one program listens, whatever the scheme."""

    address: str
    port: int


class Place(NamedTuple):
    """The address, port and scheme of an instance. `canonical_place` makes it, so that equal places compare equal."""

    address: str
    port: int
    scheme: str

    @property
    def host_port(self) -> HostPort:
        return HostPort(self.address, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{format_host_port(self.address, self.port)}"


class ProcessIdentity(NamedTuple):
    """A holder at a place. An empty holder names no process: only the place identifies it."""

    holder: str
    place: Place

    @staticmethod
    def from_holder(holder: str, place: Place) -> ProcessIdentity:
        """Returns the identity of the process in a registration."""
        return ProcessIdentity(process_name(holder), place)


def process_name(holder: str) -> str:
    """Returns the name of the process in a holder; "" if the holder names no process."""
    return "" if holder in DIALECT_HOLDERS else holder.partition(PART_SEPARATOR)[0]


def canonical_place(address: str, port: int, scheme: str) -> Place:
    """Returns the place with its address in canonical form."""
    return Place(canonical_address(address), port, scheme)


def canonical_address(address: str) -> str:
    """Returns the address in canonical form: the address itself if it is that already."""
    if ":" in address:
        return _canonical_ipv6(address)
    name = address.rstrip(".").lower()
    return address if name == address else name  # Not the copy, to save its memory.


@lru_cache(MAX_CACHED_IDENTITIES)
def holder_digest(holder: str) -> str:
    """Returns the digest that consumers see in place of the holder's process; "" if it names no process."""
    process = process_name(holder)
    return blake2b(process.encode(), digest_size=DIGEST_BYTES).hexdigest() if process else ""


@lru_cache(MAX_CACHED_IDENTITIES)
def _canonical_ipv6(address: str) -> str:
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip)
