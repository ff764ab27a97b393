"""Who is listed at which address and port: an index that never changes, and costs what changed to follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from adsum.core.identity import Place, Socket
from adsum.core.model import Key

FEWEST_SHARDS, MOST_SHARDS = 16, 4_096
"""Bounds of the number of shards. A change copies one shard, so it costs its share of the index."""
FULL: Final = 64
"""Sockets a shard holds on average; past it the index is spread over more shards, at most `MOST_SHARDS`."""

_Shard = Mapping[Socket, tuple[Key, ...]]


class Occupancy:
    """The keys that are listed at each socket."""

    __slots__ = ("_shards", "_size")

    def __init__(self, shards: tuple[_Shard, ...] = ({},) * FEWEST_SHARDS, size: int = 0) -> None:
        self._shards = shards
        self._size = size
        """How many keys there are."""

    def at(self, socket: Socket) -> tuple[Key, ...]:
        """Who is listed there, in the order of arrival."""
        return self._shards[hash(socket) % len(self._shards)].get(socket, ())

    def with_moves(self, moves: Iterable[tuple[Key, Place | None, Place | None]]) -> Occupancy:
        """The index after each key went from one place to another; None: it is not listed before or after."""
        shards = list[_Shard]()
        copied = dict[int, dict[Socket, tuple[Key, ...]]]()
        size = self._size
        for key, before, after in moves:
            if before == after:
                continue
            shards = shards or list(self._shards)
            for place, is_there in ((before, False), (after, True)):
                if place is None:
                    continue
                size += 1 if is_there else -1
                socket = place.socket
                number = hash(socket) % len(shards)
                shard = copied.get(number)
                if shard is None:
                    shard = copied[number] = dict(shards[number])
                    shards[number] = shard
                _move(shard, socket, key, is_there=is_there)
        if not shards:
            return self
        if size > FULL * len(shards) and len(shards) < MOST_SHARDS:
            shards = _spread(shards, min(MOST_SHARDS, 4 * size // FULL))
        return Occupancy(tuple(shards), size)


def _move(shard: dict[Socket, tuple[Key, ...]], socket: Socket, key: Key, *, is_there: bool) -> None:
    others = tuple(each for each in shard.get(socket, ()) if each != key)
    keys = (*others, key) if is_there else others
    if keys:
        shard[socket] = keys
    else:
        shard.pop(socket, None)


def _spread(shards: Iterable[_Shard], number: int) -> list[_Shard]:
    spread: list[dict[Socket, tuple[Key, ...]]] = [{} for _ in range(number)]
    for shard in shards:
        for socket, keys in shard.items():
            spread[hash(socket) % number][socket] = keys
    return list(spread)


NOBODY: Final = Occupancy()
"""The index of an empty catalog."""
