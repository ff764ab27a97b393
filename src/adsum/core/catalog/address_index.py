"""The immutable index of instances by address and port. A new index costs what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from adsum.core.identity import HostPort
from adsum.core.model import Key

MIN_INDEX_SHARDS, MAX_INDEX_SHARDS = 16, 4_096
"""Bounds of the number of shards. A change copies one shard only."""
MAX_ADDRESSES_PER_SHARD: Final = 64
"""Keys in a shard on average. Past it the index is spread over more shards, at most `MAX_INDEX_SHARDS`."""

_Entry = Key | tuple[Key, ...]
"""Keys in the order in which they came. A single key stands for itself, to save the memory of a tuple."""
_Shard = Mapping[str | HostPort, _Entry]
"""By address: one key, of the instance that came there when no other had this entry. By address and port: the keys of
the others. Most hosts have one instance, which so needs no address and port of its own."""


class AddressIndex:
    """The keys of the listed instances by address and port."""

    __slots__ = ("_shards", "_size", "neighbor_count")

    def __init__(
        self, shards: tuple[_Shard, ...] = ({},) * MIN_INDEX_SHARDS, size: int = 0, neighbor_count: int = 0
    ) -> None:
        self._shards = shards
        self._size = size
        """The number of keys."""
        self.neighbor_count = neighbor_count
        """The number of keys by address and port. While it is 0, no two instances are at one address."""

    def candidates(self, host_port: HostPort) -> tuple[Key, ...]:
        """Returns the keys at the address and port, in the order in which they came.

        The first one may be at another port of the address: look at its listing.
        """
        number = len(self._shards)
        first = self._shards[hash(host_port.address) % number].get(host_port.address, ())
        others = self._shards[hash(host_port) % number].get(host_port, ())
        return (*_keys(first), *_keys(others))

    def with_moves(self, moves: Iterable[tuple[Key, HostPort | None, HostPort | None]]) -> AddressIndex:
        """Returns the index after moves of keys from one address and port to another. None means not listed."""
        edit = _Edit(self._shards, self.neighbor_count)
        size = self._size
        for key, before, after in moves:
            if before == after:
                continue
            if before is not None:
                edit.remove(key, before)
                size -= 1
            if after is not None:
                edit.add(key, after)
                size += 1
        if not edit.copied:
            return self
        shards = edit.shards
        if size > MAX_ADDRESSES_PER_SHARD * len(shards) and len(shards) < MAX_INDEX_SHARDS:
            shards = _spread(shards, min(MAX_INDEX_SHARDS, 4 * size // MAX_ADDRESSES_PER_SHARD))
        return AddressIndex(tuple(shards), size, edit.neighbor_count)


class _Edit:
    """Shards that change. The first change of a shard copies it."""

    __slots__ = ("copied", "neighbor_count", "shards")

    def __init__(self, shards: tuple[_Shard, ...], neighbor_count: int) -> None:
        self.shards = list(shards)
        self.neighbor_count = neighbor_count
        self.copied: dict[int, dict[str | HostPort, _Entry]] = {}

    def add(self, key: Key, host_port: HostPort) -> None:
        address, number = host_port.address, len(self.shards)
        others = self.shards[hash(host_port) % number].get(host_port)
        if others is None and address not in self.shards[hash(address) % number]:
            self._copy(address)[address] = key
            return
        self._copy(host_port)[host_port] = key if others is None else (*_keys(others), key)
        self.neighbor_count += 1

    def remove(self, key: Key, host_port: HostPort) -> None:
        address, number = host_port.address, len(self.shards)
        if self.shards[hash(address) % number].get(address) == key:
            del self._copy(address)[address]
            return
        present = _keys(self.shards[hash(host_port) % number].get(host_port, ()))
        others = tuple(other for other in present if other != key)
        self.neighbor_count -= len(present) - len(others)
        if others:
            self._copy(host_port)[host_port] = others if len(others) > 1 else others[0]
        elif present:
            del self._copy(host_port)[host_port]

    def _copy(self, place: str | HostPort) -> dict[str | HostPort, _Entry]:
        """Returns the copied shard of the place."""
        number = hash(place) % len(self.shards)
        shard = self.copied.get(number)
        if shard is None:
            shard = self.copied[number] = dict(self.shards[number])
            self.shards[number] = shard
        return shard


def _keys(entry: _Entry) -> tuple[Key, ...]:
    return (entry,) if isinstance(entry, Key) else entry


def _spread(shards: Iterable[_Shard], number: int) -> list[_Shard]:
    spread: list[dict[str | HostPort, _Entry]] = [{} for _ in range(number)]
    for shard in shards:
        for place, entry in shard.items():
            spread[hash(place) % number][place] = entry
    return list(spread)


EMPTY_ADDRESS_INDEX: Final = AddressIndex()
"""The index of an empty catalog."""
