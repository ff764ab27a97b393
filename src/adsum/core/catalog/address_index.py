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
"""The keys of one address and port. A single key stands for itself, to save the memory of a tuple."""
_Shard = Mapping[HostPort, _Entry]


class AddressIndex:
    """The keys of the listed instances by address and port."""

    __slots__ = ("_shards", "_size", "shared_count")

    def __init__(
        self, shards: tuple[_Shard, ...] = ({},) * MIN_INDEX_SHARDS, size: int = 0, shared_count: int = 0
    ) -> None:
        self._shards = shards
        self._size = size
        """The number of keys."""
        self.shared_count = shared_count
        """The number of addresses and ports with more than one key."""

    def keys_at(self, host_port: HostPort) -> tuple[Key, ...]:
        """Returns the keys at the address and port, in the order in which they came."""
        return _keys(self._shards[hash(host_port) % len(self._shards)].get(host_port, ()))

    def with_moves(self, moves: Iterable[tuple[Key, HostPort | None, HostPort | None]]) -> AddressIndex:
        """Returns the index after moves of keys from one address and port to another. None means not listed."""
        shards = list[_Shard]()
        copied = dict[int, dict[HostPort, _Entry]]()
        size, shared_count = self._size, self.shared_count
        for key, before, after in moves:
            if before == after:
                continue
            shards = shards or list(self._shards)
            for host_port, is_arrival in ((before, False), (after, True)):
                if host_port is None:
                    continue
                size += 1 if is_arrival else -1
                number = hash(host_port) % len(shards)
                shard = copied.get(number)
                if shard is None:
                    shard = copied[number] = dict(shards[number])
                    shards[number] = shard
                shared_count += _move(shard, host_port, key, is_arrival=is_arrival)
        if not shards:
            return self
        if size > MAX_ADDRESSES_PER_SHARD * len(shards) and len(shards) < MAX_INDEX_SHARDS:
            shards = _spread(shards, min(MAX_INDEX_SHARDS, 4 * size // MAX_ADDRESSES_PER_SHARD))
        return AddressIndex(tuple(shards), size, shared_count)


def _keys(entry: _Entry) -> tuple[Key, ...]:
    return (entry,) if isinstance(entry, Key) else entry


def _move(shard: dict[HostPort, _Entry], host_port: HostPort, key: Key, *, is_arrival: bool) -> int:
    """Adds or removes a key. Returns by how many the addresses and ports with more than one key become more."""
    present = shard.get(host_port)
    if present is None:
        if is_arrival:
            shard[host_port] = key
        return 0
    before = _keys(present)
    others = tuple(other for other in before if other != key)
    keys = (*others, key) if is_arrival else others
    if keys:
        shard[host_port] = keys if len(keys) > 1 else keys[0]
    else:
        del shard[host_port]
    return (len(keys) > 1) - (len(before) > 1)


def _spread(shards: Iterable[_Shard], number: int) -> list[_Shard]:
    spread: list[dict[HostPort, _Entry]] = [{} for _ in range(number)]
    for shard in shards:
        for host_port, entry in shard.items():
            spread[hash(host_port) % number][host_port] = entry
    return list(spread)


EMPTY_ADDRESS_INDEX: Final = AddressIndex()
"""The index of an empty catalog."""
