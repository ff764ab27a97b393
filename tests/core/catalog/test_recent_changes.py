"""Recent changes equal a list of the latest ones, whatever they share."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog.recent_changes import NO_RECENT_CHANGES, RecentChange
from adsum.core.model import Key
from adsum.core.provenance import Cause, Provenance

LIMIT = 4


def _change(revision: int, reason: str = "") -> RecentChange:
    return RecentChange(revision, Key("orders", "o1"), Provenance(Cause.DECLARED, "ann", reason), listed=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), max_size=30))
def test_every_extension_is_the_latest_changes_and_changes_none_before_it(steps: list[tuple[int, int]]) -> None:
    """Each step adds some changes to one of the earlier results: mostly to the last one, at times to another."""
    results, expected = [NO_RECENT_CHANGES], [list[RecentChange]()]
    for revision, (count, back) in enumerate(steps, 1):
        base = len(results) - 1 if back > 3 else max(0, len(results) - 1 - back)
        added = [_change(revision, str(number)) for number in range(count)]
        after, dropped = results[base].extended(added, LIMIT)
        whole = [*expected[base], *added]
        assert [*dropped, *after] == whole
        assert len(after) <= LIMIT
        assert not dropped or not after or dropped[-1].revision < after[0].revision, "a revision is not divided"
        if len(whole) <= LIMIT:
            assert not dropped
        results.append(after)
        expected.append(list(after))
    for result, changes in zip(results, expected, strict=True):
        assert list(result) == changes
        assert list(reversed(result)) == changes[::-1]
        assert (len(result), bool(result)) == (len(changes), bool(changes))
        assert [result[number] for number in range(-len(changes), len(changes))] == changes * 2
        assert result[1:3] == changes[1:3]


def test_long_histories_keep_a_bounded_list() -> None:
    changes = NO_RECENT_CHANGES
    for revision in range(1_000):
        changes, _ = changes.extended([_change(revision)], LIMIT)
        (shared,) = (held for held in gc.get_referents(changes) if isinstance(held, list))
        assert len(shared) <= 2 * LIMIT + 2


def test_the_size_of_a_change_includes_its_reason() -> None:
    assert _change(1, "é").size > _change(1, "e").size > _change(1).size
