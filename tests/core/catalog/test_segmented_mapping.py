"""Segmented mappings equal dictionaries after any edits, and share what an edit does not touch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog.segmented_mapping import (
    MAX_UNSEGMENTED,
    SEGMENT_ITEMS,
    SegmentedMapping,
    edit_mapping,
    freeze_mapping,
    mutable_copy,
    segment_number,
    segments_of,
)
from tests.support.small_segments import small_segments

KEYS = st.integers(0, 40).map(str)
EDITS = st.lists(st.lists(st.tuples(KEYS, st.integers() | st.none()), max_size=25), max_size=25)
"""Batches of new values; None removes the key."""


def edited(mapping: Mapping[str, int], edits: list[tuple[str, int | None]]) -> Mapping[str, int]:
    edit = edit_mapping(mapping)
    for key, value in edits:
        if value is None:
            before = edit.get(key)
            assert edit.pop(key, None) == before
        else:
            edit[key] = value
            assert edit.get(key) == value
    return freeze_mapping(edit)


def assert_equal(mapping: Mapping[str, int], expected: dict[str, int]) -> None:
    assert list(mapping) == list(mapping.keys()) == list(expected)
    assert list(mapping.items()) == list(expected.items())
    assert list(mapping.values()) == list(expected.values())
    assert len(mapping) == len(expected)
    assert mapping == expected
    assert mutable_copy(mapping) == expected
    assert all(mapping[key] == value and mapping.get(key) == value for key, value in expected.items())
    for unknown in ("unknown", *(str(number) for number in range(41) if str(number) not in expected)):
        assert unknown not in mapping
        assert mapping.get(unknown) is None
        with pytest.raises(KeyError):
            mapping[unknown]
    segments = segments_of(mapping)
    assert list(segments) == sorted(segments)
    assert all(key in segments[segment_number(mapping, key)] for key in expected)


@given(EDITS)
def test_a_mapping_equals_a_dictionary_after_any_edits(batches: list[list[tuple[str, int | None]]]) -> None:
    with small_segments():
        mapping, expected = freeze_mapping(dict[str, int]()), dict[str, int]()
        seen = []
        for edits in batches:
            seen.append((mapping, dict(expected)))
            mapping = edited(mapping, edits)
            for key, value in edits:
                if value is None:
                    expected.pop(key, None)
                else:
                    expected[key] = value
            assert_equal(mapping, expected)
            if isinstance(mapping, SegmentedMapping):
                assert all(0 < len(segment) <= 4 for segment in mapping.segments.values())
        for earlier, copy in seen:
            assert list(earlier.items()) == list(copy.items()), "an edit changes no mapping before it"


@given(st.sets(st.integers(0, 199), max_size=200))
def test_removals_leave_no_more_than_a_few_small_segments(removed: set[int]) -> None:
    with small_segments():
        mapping = freeze_mapping({str(number): number for number in range(200)})
        for number in removed:
            mapping = edited(mapping, [(str(number), None)])
        left = 200 - len(removed)
        assert len(segments_of(mapping)) <= max(1, left)
        sizes = [len(segment) for segment in segments_of(mapping).values()]
        assert all(a + b > 2 for a, b in pairwise(sizes)), "two small neighbours are joined"


def large(count: int = 10 * SEGMENT_ITEMS) -> SegmentedMapping[int]:
    mapping = freeze_mapping({str(number): number for number in range(count)})
    assert isinstance(mapping, SegmentedMapping)
    return mapping


def shared(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """The number of segments that both mappings have."""
    known = segments_of(before)
    return sum(known.get(number) is segment for number, segment in segments_of(after).items())


def test_a_change_copies_one_segment() -> None:
    before = large()
    rest = len(segments_of(before)) - 1
    several: list[list[tuple[str, int | None]]]
    several = [[("700", -1)], [("700", None)], [("700", -1), ("701", -1), ("702", None)]]
    for edits in several:
        assert shared(before, edited(before, edits)) == rest
    assert shared(before, edited(before, [("new", 1)])) >= rest
    assert shared(before, edited(before, [])) == rest + 1


@pytest.mark.parametrize("length", [200, 1_000, 10_000])
def test_a_change_copies_a_small_share_of_the_mapping(length: int) -> None:
    before = large(length)
    after = edited(before, [("new", 1)])
    assert isinstance(after, SegmentedMapping)
    known = {*map(id, before.segments.values()), *map(id, before.index)}
    copied = [part for part in (*after.segments.values(), *after.index) if id(part) not in known]
    assert len(copied) == 2
    names = sum(map(len, copied)) + len(after.segments) + len(after.index)
    assert names < 4 * length**0.5 + 100


def test_a_changed_value_copies_no_index() -> None:
    before = large()
    after = edited(before, [("700", -1)])
    assert isinstance(after, SegmentedMapping)
    assert all(a is b for a, b in zip(before.index, after.index, strict=True))


def test_the_index_grows_with_the_mapping() -> None:
    mapping: Mapping[str, int] = large(MAX_UNSEGMENTED + 1)
    mapping = edited(mapping, [(f"new-{number}", number) for number in range(20 * MAX_UNSEGMENTED)])
    assert isinstance(mapping, SegmentedMapping)
    assert max(map(len, mapping.index)) < 4 * SEGMENT_ITEMS


def test_a_mapping_is_cut_in_segments_only_while_it_is_large() -> None:
    mapping = freeze_mapping({str(number): number for number in range(MAX_UNSEGMENTED)})
    assert list(segments_of(mapping).values()) == [mapping]
    mapping = edited(mapping, [("one-more", 1)])
    assert len(segments_of(mapping)) == 5
    mapping = edited(mapping, [(str(number), None) for number in range(MAX_UNSEGMENTED // 2)])
    assert isinstance(mapping, SegmentedMapping)
    mapping = edited(mapping, [("one-more", None)])
    assert not isinstance(mapping, SegmentedMapping)
    assert list(mapping) == [str(number) for number in range(MAX_UNSEGMENTED // 2, MAX_UNSEGMENTED)]
