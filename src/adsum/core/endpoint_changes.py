"""The changes from one sequence of endpoints to another. Equal parts are compared at the speed of tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress, count
from operator import is_not
from typing import NamedTuple, TypeVar

from adsum.core.model import Endpoint

MIN_COMPARED, MAX_COMPARED = 4, 256
"""Endpoints that are compared at a time: few after a change, since changes may be neighbours, then twice as many."""

T = TypeVar("T")


class EndpointChange(NamedTuple):
    """An endpoint came (`before` is None), changed, or left (`after` is None). `place` is that in the old sequence."""

    place: int
    before: Endpoint | None
    after: Endpoint | None


def endpoint_changes(before: Sequence[Endpoint], after: Sequence[Endpoint]) -> list[EndpointChange]:
    """Returns the changes, in order, that turn one sequence into the other.

    If both are in the order of ids, each id has one change at most. In any other order the changes are right, too, but
    may be more than needed.
    """
    changes: list[EndpointChange] = []
    old = new = 0
    compared: int = MIN_COMPARED
    while old < len(before) and new < len(after):
        olds, news = before[old : old + compared], after[new : new + compared]
        if olds == news:
            old, new, compared = old + len(olds), new + len(news), min(2 * compared, MAX_COMPARED)
            continue
        equal = next(compress(count(), map(is_not, olds, news)), min(len(olds), len(news)))
        old, new, compared = old + equal, new + equal, MIN_COMPARED
        if old == len(before) or new == len(after):
            break
        left, came = before[old], after[new]
        if left.id == came.id:
            if left != came:
                changes.append(EndpointChange(old, left, came))
            old, new = old + 1, new + 1
        elif left.id < came.id:
            changes.append(EndpointChange(old, left, None))
            old += 1
        else:
            changes.append(EndpointChange(old, None, came))
            new += 1
    changes += [EndpointChange(place, before[place], None) for place in range(old, len(before))]
    changes += [EndpointChange(len(before), None, endpoint) for endpoint in after[new:]]
    return changes


def amended(items: Sequence[T], changes: Iterable[EndpointChange], make: Callable[[Endpoint], T]) -> list[T]:
    """Returns the items after the changes, where each item belongs to one endpoint. `make` makes those that came."""
    result: list[T] = []
    done = 0
    for change in changes:
        result += items[done : change.place]
        done = change.place + (change.before is not None)
        if change.after is not None:
            result.append(make(change.after))
    result += items[done:]
    return result
