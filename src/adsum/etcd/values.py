"""The requests and answers of etcd as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct


class KeyValue(Struct, frozen=True):
    """A key with its value. `revision` is that of its last change."""

    key: bytes
    value: bytes
    revision: int
    created: int = 0
    """The revision at which the key was created."""
    lease: int = 0


class Header(Struct, frozen=True):
    """The member that answered, and the revision of the whole cluster then."""

    cluster: int
    member: int
    revision: int
    term: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Keys of a range, all at `header.revision` or at the requested revision. `more`: the range has further keys."""

    header: Header
    key_values: tuple[KeyValue, ...]
    more: bool = False
    count: int = 0


class Put(Struct, frozen=True):
    """Sets a key. With a lease the key is deleted when the lease ends."""

    key: bytes
    value: bytes
    lease: int = 0


class Delete(Struct, frozen=True):
    """Deletes a key, or those from `key` up to but without `end`."""

    key: bytes
    end: bytes | None = None


class Get(Struct, frozen=True):
    """Reads a key, or those from `key` up to but without `end`."""

    key: bytes
    end: bytes | None = None


class Unchanged(Struct, frozen=True):
    """The condition that the key was last changed at that revision; 0: that it does not exist."""

    key: bytes
    revision: int


class CreatedAt(Struct, frozen=True):
    """The condition that the key exists since that revision; 0: that it does not exist."""

    key: bytes
    revision: int


Operation = Put | Delete | Get
Condition = Unchanged | CreatedAt


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """The result of a transaction. `succeeded`: the conditions held. `reads` are the answers to its `Get`s in order."""

    header: Header
    succeeded: bool
    reads: Sequence[tuple[KeyValue, ...]]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster. `urls` are for clients, `peer_urls` for the other members."""

    id: int
    name: str
    urls: tuple[str, ...]
    peer_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """The status that a member reports of itself and of the cluster."""

    header: Header
    version: str
    leader: int
    """The id of the leader; 0 if there is none."""
    size: int
    """Bytes of the member's database."""


def prefix_end(prefix: bytes) -> bytes:
    """Returns the end of the range of all keys that begin with `prefix`, as etcd's `GetPrefixRangeEnd` does."""
    for length in range(len(prefix), 0, -1):
        if prefix[length - 1] < 0xFF:
            return prefix[: length - 1] + bytes([prefix[length - 1] + 1])
    return b"\0"
