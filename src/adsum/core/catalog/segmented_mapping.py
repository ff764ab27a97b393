"""Immutable mappings in the order of insertion. A change of a large mapping costs its segment, not its size.

A small mapping is one dictionary. A large one is cut in segments, and shares those that a change does not touch with
the mapping before it. A new key goes to the end, and a new value stays at its place, as in a dictionary.
"""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterator, Mapping, ValuesView
from itertools import chain, islice
from math import isqrt
from types import MappingProxyType
from typing import Final, Generic, TypeVar, overload

MAX_UNSEGMENTED: Final = 128
"""Items of a mapping that is one dictionary. Past it the mapping is cut in segments."""
SMALLEST_SEGMENT_ITEMS: Final = 32
"""Items of a full segment of a mapping with up to a thousand items. Larger mappings have larger segments, about as many
as one has items, because a change copies the list of the segments, too. What a copy costs is the objects that it names:
each of them counts its references."""
SEGMENT_ITEMS: Final = 256
"""Items of a full segment at most. Past it a new segment begins."""
MIN_SEGMENT_ITEMS: Final = 64
"""Items of a segment, or half of a full one if that is less, below which it is joined with one beside it, if both fit
into one."""
SMALLEST_INDEX_SHARD_ITEMS: Final = 8
INDEX_SHARD_ITEMS: Final = 128
"""Keys of a shard of the index on average, at least and at most; in between a third of the number of shards. Past four
times as many the keys are spread over more shards."""

V = TypeVar("V")
T = TypeVar("T")

Segments = Mapping[int, Mapping[str, V]]
"""Segments by number, in ascending order, which is that of the items."""


class SegmentedMapping(Mapping[str, V]):
    """A large immutable mapping. `create` makes the first one, and `edit_mapping` the next one from it."""

    __slots__ = ("_length", "index", "segments")

    def __init__(self, segments: Segments[V], index: tuple[Mapping[str, int], ...], length: int) -> None:
        self.segments = segments
        """No segment is empty. A segment is the same object in two mappings if nothing in it changed."""
        self.index = index
        """The number of the segment of each key, in shards by hash."""
        self._length = length

    @staticmethod
    def create(items: Collection[tuple[str, V]]) -> SegmentedMapping[V]:
        """Returns the mapping of these items, whose keys differ."""
        remaining, segments, length = iter(items), dict[int, dict[str, V]](), len(items)
        while segment := dict(islice(remaining, _segment_items(length))):
            segments[len(segments)] = segment
        return SegmentedMapping(segments, _index(segments, length), length)

    def __getitem__(self, key: str) -> V:
        return self.segments[self.index[hash(key) % len(self.index)][key]][key]

    @overload
    def get(self, key: str, /) -> V | None: ...
    @overload
    def get(self, key: str, /, default: V | T) -> V | T: ...
    def get(self, key: str, /, default: V | T | None = None) -> V | T | None:
        """Returns the value of the key, `default` if it has none. A miss raises no error inside, which would cost."""
        number = self.index[hash(key) % len(self.index)].get(key)
        return default if number is None else self.segments[number][key]

    def __contains__(self, key: object) -> bool:
        return key in self.index[hash(key) % len(self.index)]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.segments.values())

    def values(self) -> ValuesView[V]:
        return _SegmentedValues(self)

    def items(self) -> ItemsView[str, V]:
        return _SegmentedItems(self)

    def copy(self) -> dict[str, V]:
        """Returns a dictionary of the items."""
        copy: dict[str, V] = {}
        for segment in self.segments.values():
            copy |= segment
        return copy


class _SegmentedValues(ValuesView[V]):
    """The values of a segmented mapping: iterated without a look-up of each key."""

    __slots__ = ()
    _mapping: SegmentedMapping[V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(segment.values() for segment in self._mapping.segments.values())


class _SegmentedItems(ItemsView[str, V]):
    """The items of a segmented mapping: iterated without a look-up of each key."""

    __slots__ = ()
    _mapping: SegmentedMapping[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return chain.from_iterable(segment.items() for segment in self._mapping.segments.values())


class SegmentedEdit(Generic[V]):
    """Changes of a segmented mapping, with the methods of a dictionary. Copies the segments and shards that change."""

    __slots__ = ("_copied_segments", "_copied_shards", "_length", "_segment_items", "_segments", "_shards")

    def __init__(self, before: SegmentedMapping[V]) -> None:
        self._segments = dict(before.segments)
        self._shards = list(before.index)
        self._length = len(before)
        self._segment_items = _segment_items(self._length)
        """Items of a full segment."""
        self._copied_segments: dict[int, dict[str, V]] = {}
        self._copied_shards: dict[int, dict[str, int]] = {}

    def get(self, key: str) -> V | None:
        number = self._number(key)
        return None if number is None else self._segments[number][key]

    def pop(self, key: str, default: None = None) -> V | None:
        """Removes the key. Returns its value, `default` if it has none."""
        number = self._number(key)
        if number is None:
            return default
        del self._shard(key)[key]
        self._length -= 1
        segment = self._segment(number)
        value = segment.pop(key)
        if len(segment) < min(MIN_SEGMENT_ITEMS, self._segment_items // 2):
            self._join(number)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        number = self._number(key)
        if number is None:
            number = next(reversed(self._segments), 0)
            if len(self._segments.get(number, ())) >= self._segment_items:
                number += 1
            self._shard(key)[key] = number
            self._length += 1
        self._segment(number)[key] = value

    def freeze(self) -> Mapping[str, V]:
        """Returns the mapping after the changes. The edit must not be used any more."""
        if self._length <= MAX_UNSEGMENTED // 2:
            return MappingProxyType(SegmentedMapping(self._segments, (), self._length).copy())
        is_crowded = self._length > 4 * _index_shard_items(self._length) * len(self._shards)
        index = _index(self._segments, self._length) if is_crowded else tuple(self._shards)
        return SegmentedMapping(self._segments, index, self._length)

    def _number(self, key: str) -> int | None:
        return self._shards[hash(key) % len(self._shards)].get(key)

    def _segment(self, number: int) -> dict[str, V]:
        copy = self._copied_segments.get(number)
        if copy is None:
            copy = self._copied_segments[number] = dict(self._segments.get(number, ()))
            self._segments[number] = copy
        return copy

    def _shard(self, key: str) -> dict[str, int]:
        number = hash(key) % len(self._shards)
        copy = self._copied_shards.get(number)
        if copy is None:
            copy = self._copied_shards[number] = dict(self._shards[number])
            self._shards[number] = copy
        return copy

    def _join(self, number: int) -> None:
        """Moves the items of a small segment into one beside it that has room for them, and drops the small one."""
        small, numbers = self._segments[number], list(self._segments)
        place = numbers.index(number)
        if small:
            beside = (*numbers[place + 1 : place + 2], *numbers[max(0, place - 1) : place])
            room = self._segment_items - len(small)
            roomy = (other for other in beside if len(self._segments[other]) <= room)
            target = next(roomy, None)
            if target is None:
                return
            first, second = sorted((number, target))
            joined = {**self._segments[first], **self._segments[second]}
            self._segments[target] = self._copied_segments[target] = joined
            for key in small:
                self._shard(key)[key] = target
        del self._segments[number]
        self._copied_segments.pop(number, None)


def _segment_items(length: int) -> int:
    """Returns the items of a full segment in a mapping of this length."""
    return min(SEGMENT_ITEMS, max(SMALLEST_SEGMENT_ITEMS, isqrt(length)))


def _index_shard_items(length: int) -> int:
    """Returns the keys of a shard of the index, on average, in a mapping of this length."""
    return min(INDEX_SHARD_ITEMS, max(SMALLEST_INDEX_SHARD_ITEMS, isqrt(length // 3)))


def _index(segments: Segments[V], length: int) -> tuple[Mapping[str, int], ...]:
    shards: list[dict[str, int]] = [{} for _ in range(length // _index_shard_items(length) + 1)]
    for number, segment in segments.items():
        for key in segment:
            shards[hash(key) % len(shards)][key] = number
    return tuple(shards)


def edit_mapping(mapping: Mapping[str, V]) -> dict[str, V] | SegmentedEdit[V]:
    """Returns an edit of a mapping. It takes `get`, `pop` and assignments, and ends with `freeze_mapping`."""
    return SegmentedEdit(mapping) if isinstance(mapping, SegmentedMapping) else mutable_copy(mapping)


def freeze_mapping(edited: dict[str, V] | SegmentedEdit[V]) -> Mapping[str, V]:
    """Returns the immutable mapping of a dictionary or an edit, which must not be changed any more."""
    if isinstance(edited, SegmentedEdit):
        return edited.freeze()
    return SegmentedMapping.create(edited.items()) if len(edited) > MAX_UNSEGMENTED else MappingProxyType(edited)


def mutable_copy(mapping: Mapping[str, V]) -> dict[str, V]:
    """Copies a mapping into a dictionary. The copy method of a proxy takes a twentieth of the time of `dict(proxy)`."""
    return mapping.copy() if isinstance(mapping, MappingProxyType | SegmentedMapping) else dict(mapping)


def segments_of(mapping: Mapping[str, V]) -> Segments[V]:
    """Returns the segments of a mapping. A mapping that is one dictionary is one segment."""
    return mapping.segments if isinstance(mapping, SegmentedMapping) else {0: mapping}


def segment_number(mapping: Mapping[str, V], key: str) -> int:
    """Returns the number of the segment that has the key, which is in the mapping."""
    if isinstance(mapping, SegmentedMapping):
        return mapping.index[hash(key) % len(mapping.index)][key]
    return 0
