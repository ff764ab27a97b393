"""The immutable index of instances by address and port. A new index costs what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

from adsum.core.identity import HostPort
from adsum.core.model import Key

MAX_ADDRESSES_PER_SHARD: Final = 16
"""Keys in a shard on average. Past it the index is spread over four times as many shards, at most `MAX_INDEX_GROUPS`
groups of them. A change copies its shard, the list of its group and the list of groups, and what a copy costs is the
objects that it names: each of them counts its references."""
SHARDS_PER_GROUP: Final = 64
MAX_INDEX_GROUPS: Final = 128
"""Groups of shards: 8,192 shards in all. Past that, shards grow: 122 keys each in a catalog of a million instances."""

_Entry = Key | tuple[Key, ...]
"""The keys of one address and port. A single key stands for itself, to save the memory of a tuple."""
_Shard = Mapping[HostPort, _Entry]
_Group = tuple[_Shard, ...]


class AddressIndex:
    """The keys of the listed instances by address and port."""

    __slots__ = ("_groups", "_size", "shared_count")

    def __init__(self, groups: tuple[_Group, ...], size: int = 0, shared_count: int = 0) -> None:
        """`size`: the number of keys. Each group has as many shards."""
        self._groups = groups
        self._size = size
        self.shared_count = shared_count
        """The number of addresses and ports with more than one key."""

    def keys_at(self, host_port: HostPort) -> tuple[Key, ...]:
        """Returns the keys at the address and port, in the order in which they came."""
        place, number = divmod(hash(host_port), len(self._groups))
        shards = self._groups[number]
        entry = shards[place % len(shards)].get(host_port)
        return () if entry is None else _keys(entry)

    def with_moves(self, moves: Iterable[tuple[Key, HostPort | None, HostPort | None]]) -> AddressIndex:
        """Returns the index after moves of keys from one address and port to another. None means not listed."""
        edit: _IndexEdit | None = None
        for key, before, after in moves:
            if before == after:
                continue
            if edit is None:
                edit = _IndexEdit(self._groups, self._size, self.shared_count)
            if before is not None:
                edit.remove(before, key)
            if after is not None:
                edit.add(after, key)
        return self if edit is None else edit.freeze()


class _IndexEdit:
    """Changes of an index. Copies the shards that change, and the lists with them."""

    __slots__ = ("_copied", "_groups", "_shared_count", "_size")

    def __init__(self, groups: tuple[_Group, ...], size: int, shared_count: int) -> None:
        self._groups: list[_Group | list[_Shard]] = [*groups]
        self._copied: set[int] = set()
        """The numbers of the shards that were copied."""
        self._size = size
        self._shared_count = shared_count

    def add(self, host_port: HostPort, key: Key) -> None:
        shard = self._shard(host_port)
        self._size += 1
        present = shard.get(host_port)
        if present is None:
            shard[host_port] = key
            return
        keys = _keys(present)
        others = tuple(other for other in keys if other != key)
        self._put(shard, host_port, (*others, key), len(keys))

    def remove(self, host_port: HostPort, key: Key) -> None:
        shard = self._shard(host_port)
        self._size -= 1
        present = shard.get(host_port)
        if present is not None:
            keys = _keys(present)
            self._put(shard, host_port, tuple(other for other in keys if other != key), len(keys))

    def freeze(self) -> AddressIndex:
        """Returns the index after the changes. The edit must not be used any more."""
        groups = tuple(group if isinstance(group, tuple) else tuple(group) for group in self._groups)
        shard_count = len(groups) * len(groups[0])
        if self._size > MAX_ADDRESSES_PER_SHARD * shard_count and len(groups) < MAX_INDEX_GROUPS:
            wanted = 4 * self._size // (MAX_ADDRESSES_PER_SHARD * SHARDS_PER_GROUP) + 1
            groups = _spread(groups, min(MAX_INDEX_GROUPS, wanted))
        return AddressIndex(groups, self._size, self._shared_count)

    def _shard(self, host_port: HostPort) -> dict[HostPort, _Entry]:
        """Returns the shard of an address and port, copied."""
        place, number = divmod(hash(host_port), len(self._groups))
        group = self._groups[number]
        if isinstance(group, tuple):
            group = self._groups[number] = [*group]
        place %= len(group)
        shard_number = number * len(group) + place
        if shard_number not in self._copied:
            self._copied.add(shard_number)
            group[place] = dict(group[place])
        return cast("dict[HostPort, _Entry]", group[place])

    def _put(self, shard: dict[HostPort, _Entry], host_port: HostPort, keys: tuple[Key, ...], before: int) -> None:
        """Sets the keys of an address and port, which had so many before."""
        self._shared_count += (len(keys) > 1) - (before > 1)
        if keys:
            shard[host_port] = keys if len(keys) > 1 else keys[0]
        else:
            del shard[host_port]


def _keys(entry: _Entry) -> tuple[Key, ...]:
    return (entry,) if isinstance(entry, Key) else entry


def _spread(groups: Iterable[_Group], number: int) -> tuple[_Group, ...]:
    spread: list[list[dict[HostPort, _Entry]]] = [[{} for _ in range(SHARDS_PER_GROUP)] for _ in range(number)]
    for group in groups:
        for shard in group:
            for host_port, entry in shard.items():
                place, group_number = divmod(hash(host_port), number)
                spread[group_number][place % SHARDS_PER_GROUP][host_port] = entry
    return tuple(map(tuple, spread))


EMPTY_ADDRESS_INDEX: Final = AddressIndex((({},) * SHARDS_PER_GROUP,))
"""The index of an empty catalog."""
