"""Who is listed at which address and port: an index that never changes, and costs what changed to follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from adsum.core.identity import HostPort, Place
from adsum.core.model import Key

MIN_INDEX_SHARDS, MAX_INDEX_SHARDS = 16, 4_096
"""Bounds of the number of shards. A change copies one shard, so it costs its share of the index."""
MAX_ADDRESSES_PER_SHARD: Final = 64
"""Sockets a shard holds on average; past it the index is spread over more shards, at most `MAX_INDEX_SHARDS`."""

_Shard = Mapping[HostPort, tuple[Key, ...]]


class AddressIndex:
    """The keys that are listed at each socket."""

    __slots__ = ("_shards", "_size")

    def __init__(self, shards: tuple[_Shard, ...] = ({},) * MIN_INDEX_SHARDS, size: int = 0) -> None:
        self._shards = shards
        self._size = size
        """How many keys there are."""

    def keys_at(self, host_port: HostPort) -> tuple[Key, ...]:
        """Who is listed there, in the order of arrival."""
        return self._shards[hash(host_port) % len(self._shards)].get(host_port, ())

    def with_moves(self, moves: Iterable[tuple[Key, Place | None, Place | None]]) -> AddressIndex:
        """The index after each key went from one place to another; None: it is not listed before or after."""
        shards = list[_Shard]()
        copied = dict[int, dict[HostPort, tuple[Key, ...]]]()
        size = self._size
        for key, before, after in moves:
            if before == after:
                continue
            shards = shards or list(self._shards)
            for place, is_there in ((before, False), (after, True)):
                if place is None:
                    continue
                size += 1 if is_there else -1
                socket = place.host_port
                number = hash(socket) % len(shards)
                shard = copied.get(number)
                if shard is None:
                    shard = copied[number] = dict(shards[number])
                    shards[number] = shard
                _move(shard, socket, key, is_there=is_there)
        if not shards:
            return self
        if size > MAX_ADDRESSES_PER_SHARD * len(shards) and len(shards) < MAX_INDEX_SHARDS:
            shards = _spread(shards, min(MAX_INDEX_SHARDS, 4 * size // MAX_ADDRESSES_PER_SHARD))
        return AddressIndex(tuple(shards), size)


def _move(shard: dict[HostPort, tuple[Key, ...]], socket: HostPort, key: Key, *, is_there: bool) -> None:
    others = tuple(each for each in shard.get(socket, ()) if each != key)
    keys = (*others, key) if is_there else others
    if keys:
        shard[socket] = keys
    else:
        shard.pop(socket, None)


def _spread(shards: Iterable[_Shard], number: int) -> list[_Shard]:
    spread: list[dict[HostPort, tuple[Key, ...]]] = [{} for _ in range(number)]
    for shard in shards:
        for socket, keys in shard.items():
            spread[hash(socket) % number][socket] = keys
    return list(spread)


EMPTY_ADDRESS_INDEX: Final = AddressIndex()
"""The index of an empty catalog."""
