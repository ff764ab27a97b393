"""What nodes say of consumers: to one another, and to whoever drains an instance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.consumers.ack_ledger import AckStatus, PendingConsumer

MAX_LISTED_CONSUMERS: Final = 100
"""How many consumers a list of those that are waited for, or lost, names; further ones are only counted."""
MAX_IDS_BYTES: Final = 20_000
"""Bytes of the ids that one node asks another about, or tells it of, at a time; those of further consumers have their
turn when these are settled. Both fit into the head of a request."""


@dataclass(frozen=True, slots=True)
class ConsumerHints:
    """What a node knows of consumers that others wait for: who acknowledged there, and who said good-bye there."""

    acknowledged: Sequence[str] = ()
    goodbyes: Sequence[str] = ()


AckQuery = Callable[[str, int, float, Sequence[str], ConsumerHints], Awaitable[wire.AcknowledgementReport]]
"""Has a node wait until its consumers of a service route by a revision, at most so many seconds, and look for these
other consumers meanwhile; what is known of its own ones elsewhere helps it."""


def build_report(
    status: AckStatus, node: str, epoch: str, revision: int, *, now: float, wall: float
) -> wire.AcknowledgementReport:
    """The standing of one node. `now` is on the clock of `standing`, and `wall` the same instant for people."""
    ahead = wall - now
    ids = [each.consumer.id for each in (*status.waiting, *status.lost) if each.consumer.id]
    return wire.AcknowledgementReport(
        epoch,
        revision,
        len(status.waiting),
        [_view(each, node, ahead) for each in status.waiting[:MAX_LISTED_CONSUMERS]],
        [_view(each, node, ahead) for each in status.lost[:MAX_LISTED_CONSUMERS]],
        len(status.lost),
        ids=truncate_ids(ids),
    )


def merge_reports(reports: Sequence[wire.AcknowledgementReport]) -> wire.AcknowledgementReport:
    """The standing of a registry from those of its nodes. Whoever is known at several counts once."""
    waiting, lost = dict[object, wire.ConsumerView](), dict[object, wire.ConsumerView]()
    twice = twice_lost = 0
    for each in reports:
        twice += _gather(waiting, each.waiting)
    for each in reports:
        there = [view for view in each.lost if not (view.id and view.id in waiting)]
        twice_lost += len(each.lost) - len(there) + _gather(lost, there)
    first = reports[0]
    return wire.AcknowledgementReport(
        first.epoch,
        first.revision,
        sum(each.unacknowledged for each in reports) - twice,
        list(waiting.values())[:MAX_LISTED_CONSUMERS],
        list(lost.values())[:MAX_LISTED_CONSUMERS],
        sum(each.lost_count for each in reports) - twice_lost,
    )


def truncate_ids(ids: Iterable[str]) -> list[str]:
    """As many of the ids, each once, as fit into `MAX_IDS_BYTES`."""
    found, size = [], 0
    for id in dict.fromkeys(ids):
        size += len(id) + len("&acknowledged=")
        if size > MAX_IDS_BYTES:
            break
        found.append(id)
    return found


def _gather(into: dict[object, wire.ConsumerView], views: Collection[wire.ConsumerView]) -> int:
    """Put them together; how many were there already."""
    before = len(into)
    for view in views:
        into.setdefault(view.id or (view.node, view.name, view.reason, len(into)), view)
    return len(views) - (len(into) - before)


def _view(pending: PendingConsumer, node: str, ahead: float) -> wire.ConsumerView:
    consumer = pending.consumer
    return wire.ConsumerView(
        name=consumer.name,
        address=consumer.address,
        node=node,
        reason=pending.reason,
        since=round(pending.since + ahead, 3),
        id=consumer.id,
    )
