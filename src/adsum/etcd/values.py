"""What is asked of etcd and what it answers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key at the revision of its last change."""

    key: bytes
    value: bytes
    revision: int
    created: int = 0
    """The revision at which it came."""
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, and at which revision of the whole cluster."""

    cluster: int
    member: int
    revision: int
    term: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Keys of a range, all as they were at `header.revision` or at the revision asked for."""

    header: Header
    key_values: tuple[KeyValue, ...]
    more: bool = False
    count: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; with a lease, it goes when the lease ends."""

    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or those from `key` up to but without `end`."""

    key: bytes
    end: bytes | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key, or those from `key` up to but without `end`."""

    key: bytes
    end: bytes | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Only if the key was last changed at that revision; 0: only if there is none."""

    key: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """Only if the key is there since that revision; 0: only if there is none."""

    key: bytes
    revision: int


Operation = Put | Delete | Get
Condition = Unchanged | CreatedAt


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """How a transaction went. `reads` are the answers to its `Get`s, in order."""

    header: Header
    succeeded: bool
    reads: Sequence[tuple[KeyValue, ...]]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster: where clients reach it, and where the other members do."""

    id: int
    name: str
    urls: tuple[str, ...]
    peer_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What a member says of itself and of the cluster."""

    header: Header
    version: str
    leader: int
    """The leader's id; 0: there is none."""
    size: int
    """Bytes of its database."""


def prefix_end(prefix: bytes) -> bytes:
    """Where the range of all keys that begin with `prefix` ends: etcd's own `GetPrefixRangeEnd`."""
    for length in range(len(prefix), 0, -1):
        if prefix[length - 1] < 0xFF:
            return prefix[: length - 1] + bytes([prefix[length - 1] + 1])
    return b"\0"
