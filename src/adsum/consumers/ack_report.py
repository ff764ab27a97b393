"""What nodes say of consumers: to one another, and to whoever drains an instance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.consumers.ack_ledger import Pending, Standing

MAX_LISTED: Final = 100
"""How many consumers a list of those that are waited for, or lost, names; further ones are only counted."""
MAX_IDS: Final = 20_000
"""Bytes of the ids that one node asks another about, or tells it of, at a time; those of further consumers have their
turn when these are settled. Both fit into the head of a request."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a node knows of consumers that others wait for: who acknowledged there, and who said good-bye there."""

    acknowledged: Sequence[str] = ()
    gone: Sequence[str] = ()


Ask = Callable[[str, int, float, Sequence[str], Hints], Awaitable[wire.Unaware]]
"""Has a node wait until its consumers of a service route by a revision, at most so many seconds, and look for these
other consumers meanwhile; what is known of its own ones elsewhere helps it."""


def report(standing: Standing, node: str, epoch: str, revision: int, *, now: float, wall: float) -> wire.Unaware:
    """The standing of one node. `now` is on the clock of `standing`, and `wall` the same instant for people."""
    ahead = wall - now
    ids = [each.consumer.id for each in (*standing.waiting, *standing.lost) if each.consumer.id]
    return wire.Unaware(
        epoch,
        revision,
        len(standing.waiting),
        [_view(each, node, ahead) for each in standing.waiting[:MAX_LISTED]],
        [_view(each, node, ahead) for each in standing.lost[:MAX_LISTED]],
        len(standing.lost),
        ids=fitting(ids),
    )


def merged(reports: Sequence[wire.Unaware]) -> wire.Unaware:
    """The standing of a registry from those of its nodes. Whoever is known at several counts once."""
    waiting, lost = dict[object, wire.ConsumerView](), dict[object, wire.ConsumerView]()
    twice = twice_lost = 0
    for each in reports:
        twice += _gather(waiting, each.waiting)
    for each in reports:
        there = [view for view in each.lost if not (view.id and view.id in waiting)]
        twice_lost += len(each.lost) - len(there) + _gather(lost, there)
    first = reports[0]
    return wire.Unaware(
        first.epoch,
        first.revision,
        sum(each.unaware for each in reports) - twice,
        list(waiting.values())[:MAX_LISTED],
        list(lost.values())[:MAX_LISTED],
        sum(each.lost_count for each in reports) - twice_lost,
    )


def fitting(ids: Iterable[str]) -> list[str]:
    """As many of the ids, each once, as fit into `MAX_IDS`."""
    found, size = [], 0
    for id in dict.fromkeys(ids):
        size += len(id) + len("&acknowledged=")
        if size > MAX_IDS:
            break
        found.append(id)
    return found


def _gather(into: dict[object, wire.ConsumerView], views: Collection[wire.ConsumerView]) -> int:
    """Put them together; how many were there already."""
    before = len(into)
    for view in views:
        into.setdefault(view.id or (view.node, view.name, view.why, len(into)), view)
    return len(views) - (len(into) - before)


def _view(pending: Pending, node: str, ahead: float) -> wire.ConsumerView:
    consumer = pending.consumer
    return wire.ConsumerView(
        name=consumer.name,
        address=consumer.address,
        node=node,
        why=pending.why,
        since=round(pending.since + ahead, 3),
        id=consumer.id,
    )
