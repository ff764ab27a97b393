"""The immutable index of instances by address and port. A new index costs what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

from adsum.core.identity import HostPort
from adsum.core.model import Key

MAX_ADDRESSES_PER_SHARD: Final = 16
"""Keys in a shard on average. Past it the index is spread over four times as many shards, at most `MAX_INDEX_GROUPS`
groups of them. A change copies its shard, the list of its group and the list of groups. What a copy costs is the
objects that it names, because each of them counts its references."""
SHARDS_PER_GROUP: Final = 64
MAX_INDEX_GROUPS: Final = 128
"""Groups of shards: 8,192 shards in all. Past that, shards grow: 122 keys each in a catalog of a million instances."""

_Entry = Key | tuple[Key, ...]
"""Keys in the order in which they came. A single key stands for itself, to save the memory of a tuple."""
_Shard = Mapping[str | HostPort, _Entry]
"""By address: one key, of the instance that came there when no other had this entry. By address and port: the keys of
the others. Most hosts have one instance, which so needs no address and port of its own."""


_Group = tuple[_Shard, ...]


class AddressIndex:
    """The keys of the listed instances by address and port."""

    __slots__ = ("_groups", "_size", "neighbor_count")

    def __init__(self, groups: tuple[_Group, ...], size: int = 0, neighbor_count: int = 0) -> None:
        """`groups` have the same number of shards each."""
        self._groups = groups
        self._size = size
        """The number of keys."""
        self.neighbor_count = neighbor_count
        """The number of keys by address and port. While it is 0, no two instances are at one address."""

    def candidates(self, host_port: HostPort) -> tuple[Key, ...]:
        """Returns the keys at the address and port, in the order in which they came.

        The first one may be at another port of the address: look at its listing.
        """
        first = _find(self._groups, host_port.address)
        others = _find(self._groups, host_port)
        if others is None:
            return () if first is None else _keys(first)
        return _keys(others) if first is None else (*_keys(first), *_keys(others))

    def with_moves(self, moves: Iterable[tuple[Key, HostPort | None, HostPort | None]]) -> AddressIndex:
        """Returns the index after moves of keys from one address and port to another. None means not listed."""
        edit: _Edit | None = None
        size = self._size
        for key, before, after in moves:
            if before == after:
                continue
            if edit is None:
                edit = _Edit(self._groups, self.neighbor_count)
            if before is not None:
                edit.remove(key, before)
                size -= 1
            if after is not None:
                edit.add(key, after)
                size += 1
        if edit is None:
            return self
        groups = tuple(group if isinstance(group, tuple) else tuple(group) for group in edit.groups)
        if size > MAX_ADDRESSES_PER_SHARD * len(groups) * len(groups[0]) and len(groups) < MAX_INDEX_GROUPS:
            wanted = 4 * size // (MAX_ADDRESSES_PER_SHARD * SHARDS_PER_GROUP) + 1
            groups = _spread(groups, min(MAX_INDEX_GROUPS, wanted))
        return AddressIndex(groups, size, edit.neighbor_count)


class _Edit:
    """Shards that change. The first change of a shard copies it, and the list of its group."""

    __slots__ = ("_copied", "groups", "neighbor_count")

    def __init__(self, groups: tuple[_Group, ...], neighbor_count: int) -> None:
        self.groups: list[_Group | list[_Shard]] = [*groups]
        self.neighbor_count = neighbor_count
        self._copied: dict[int, dict[str | HostPort, _Entry]] = {}
        """The copied shards by number, counted over all groups."""

    def add(self, key: Key, host_port: HostPort) -> None:
        address, others = host_port.address, _find(self.groups, host_port)
        if others is None and _find(self.groups, address) is None:
            self._copy(address)[address] = key
            return
        self._copy(host_port)[host_port] = key if others is None else (*_keys(others), key)
        self.neighbor_count += 1

    def remove(self, key: Key, host_port: HostPort) -> None:
        address = host_port.address
        if _find(self.groups, address) == key:
            del self._copy(address)[address]
            return
        entry = _find(self.groups, host_port)
        present = () if entry is None else _keys(entry)
        others = tuple(other for other in present if other != key)
        self.neighbor_count -= len(present) - len(others)
        if others:
            self._copy(host_port)[host_port] = others if len(others) > 1 else others[0]
        elif present:
            del self._copy(host_port)[host_port]

    def _copy(self, place: str | HostPort) -> dict[str | HostPort, _Entry]:
        """Returns the copied shard of the place."""
        rest, group_number = divmod(hash(place), len(self.groups))
        group = self.groups[group_number]
        number = rest % len(group)
        copied = self._copied.get(group_number * len(group) + number)
        if copied is None:
            if isinstance(group, tuple):
                group = self.groups[group_number] = [*group]
            copied = self._copied[group_number * len(group) + number] = dict(group[number])
            group[number] = copied
        return copied


def _find(groups: Sequence[Sequence[_Shard]], place: str | HostPort) -> _Entry | None:
    """Returns the entry of an address, or of an address and port; None if there is none."""
    rest, number = divmod(hash(place), len(groups))
    shards = groups[number]
    return shards[rest % len(shards)].get(place)


def _keys(entry: _Entry) -> tuple[Key, ...]:
    return (entry,) if isinstance(entry, Key) else entry


def _spread(groups: Iterable[_Group], count: int) -> tuple[_Group, ...]:
    spread: list[list[dict[str | HostPort, _Entry]]] = [[{} for _ in range(SHARDS_PER_GROUP)] for _ in range(count)]
    for shard in chain.from_iterable(groups):
        for place, entry in shard.items():
            rest, number = divmod(hash(place), count)
            spread[number][rest % SHARDS_PER_GROUP][place] = entry
    return tuple(map(tuple, spread))


EMPTY_ADDRESS_INDEX: Final = AddressIndex((({},) * SHARDS_PER_GROUP,))
"""The index of an empty catalog."""
