"""What tells instances apart: the place where one is reached, and the process that is there.

An id names an entry of the catalog. Evidence of checks, slow start and outliers belong to a process.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from adsum.core.addresses import format_host_port

DIGEST_BYTES: Final = 6
"""Bytes of a holder's digest: consumers tell processes apart by it, and nobody can renew or deregister by it."""
MAX_CACHED_ADDRESSES: Final = 65_536
"""How many addresses and digests are remembered; past it those used longest ago are computed again."""

DIALECT_HOLDERS: Final = frozenset({"etcd-naming"})
"""Holders under which a dialect lists what its own system registered: they name no process, as an empty one does."""

PART_SEPARATOR: Final = "~~"
"""What comes after it in a holder names a part of the process, such as one of its registrars: a part holds its own
lease, and evidence belongs to the process."""


class HostPort(NamedTuple):
    """An address and port: one program listens there, whatever scheme it is spoken to by."""

    address: str
    port: int


class Place(NamedTuple):
    """Where an instance is reached. Made by `canonical_place`, so that one place is written in one way."""

    address: str
    port: int
    scheme: str

    @property
    def host_port(self) -> HostPort:
        return HostPort(self.address, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{format_host_port(self.address, self.port)}"


class ProcessIdentity(NamedTuple):
    """A holder at a place. A holder of "" names no process: only the place tells it apart."""

    holder: str
    place: Place

    @staticmethod
    def from_holder(holder: str, place: Place) -> ProcessIdentity:
        """The process that a registration names."""
        return ProcessIdentity(process_name(holder), place)


def process_name(holder: str) -> str:
    """The process that a holder names; "" if it names none."""
    return "" if holder in DIALECT_HOLDERS else holder.partition(PART_SEPARATOR)[0]


def canonical_place(address: str, port: int, scheme: str) -> Place:
    """The place, with its address in the one form that all ways of writing it share."""
    return Place(_canonical(address), port, scheme)


@lru_cache(MAX_CACHED_ADDRESSES)
def holder_digest(holder: str) -> str:
    """What consumers see of a holder: its process, which nobody can learn from it; "" if it names none."""
    process = process_name(holder)
    return blake2b(process.encode(), digest_size=DIGEST_BYTES).hexdigest() if process else ""


@lru_cache(MAX_CACHED_ADDRESSES)
def _canonical(address: str) -> str:
    if ":" not in address:
        return address.rstrip(".").lower()
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip)
