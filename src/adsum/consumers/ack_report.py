"""The reports of acknowledgements that nodes send to one another, and to clients that drain an instance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.consumers.ack_ledger import AckStatus, PendingConsumer

MAX_LISTED_CONSUMERS: Final = 100
"""Consumers in the list of those that are waited for, and in the list of lost ones. Further ones are only counted."""
MAX_IDS_BYTES: Final = 20_000
"""Bytes of each list of consumer ids in one query between nodes. Further ids wait until these are settled. The lists
fit into the head of an HTTP request."""


@dataclass(frozen=True, slots=True)
class ConsumerHints:
    """The ids of consumers that have acknowledged, or said good-bye, at one node while another node waits for them."""

    acknowledged: Sequence[str] = ()
    goodbyes: Sequence[str] = ()


AckQuery = Callable[[str, int, float, Sequence[str], ConsumerHints], Awaitable[wire.AcknowledgementReport]]
"""Queries a node: (service, revision, wait, ids, hints) → report. The node waits at most `wait` seconds until its
consumers of the service route by the revision. The report also answers for the consumers `ids` of other nodes. `hints`
are those of other nodes about its consumers."""


def build_report(
    status: AckStatus, node: str, epoch: str, revision: int, *, now: float, wall: float
) -> wire.AcknowledgementReport:
    """Returns the report of one node. `now` (on the clock of `status`) and `wall` are the same instant."""
    offset = wall - now
    ids = [pending.consumer.id for pending in (*status.waiting, *status.lost) if pending.consumer.id]
    return wire.AcknowledgementReport(
        epoch,
        revision,
        len(status.waiting),
        [_view(pending, node, offset) for pending in status.waiting[:MAX_LISTED_CONSUMERS]],
        [_view(pending, node, offset) for pending in status.lost[:MAX_LISTED_CONSUMERS]],
        len(status.lost),
        ids=truncate_ids(ids),
    )


def merge_reports(reports: Sequence[wire.AcknowledgementReport]) -> wire.AcknowledgementReport:
    """Merges the reports of all nodes into that of the registry. A consumer that several nodes know counts once."""
    waiting, lost = dict[object, wire.ConsumerView](), dict[object, wire.ConsumerView]()
    duplicates = lost_duplicates = 0
    for report in reports:
        duplicates += _gather(waiting, report.waiting)
    for report in reports:
        only_lost = [view for view in report.lost if not (view.id and view.id in waiting)]
        lost_duplicates += len(report.lost) - len(only_lost) + _gather(lost, only_lost)
    first = reports[0]
    return wire.AcknowledgementReport(
        first.epoch,
        first.revision,
        sum(report.unacknowledged for report in reports) - duplicates,
        list(waiting.values())[:MAX_LISTED_CONSUMERS],
        list(lost.values())[:MAX_LISTED_CONSUMERS],
        sum(report.lost_count for report in reports) - lost_duplicates,
    )


def truncate_ids(ids: Iterable[str]) -> list[str]:
    """Returns the first ids that fit into `MAX_IDS_BYTES`, without duplicates."""
    fitting, size = [], 0
    for id in dict.fromkeys(ids):
        size += len(id) + len("&acknowledged=")
        if size > MAX_IDS_BYTES:
            break
        fitting.append(id)
    return fitting


def _gather(into: dict[object, wire.ConsumerView], views: Collection[wire.ConsumerView]) -> int:
    """Adds the views to `into`. Returns the number of duplicates."""
    before = len(into)
    for view in views:
        into.setdefault(view.id or (view.node, view.name, view.reason, len(into)), view)
    return len(views) - (len(into) - before)


def _view(pending: PendingConsumer, node: str, offset: float) -> wire.ConsumerView:
    consumer = pending.consumer
    return wire.ConsumerView(
        name=consumer.name,
        address=consumer.address,
        node=node,
        reason=pending.reason,
        since=round(pending.since + offset, 3),
        id=consumer.id,
        principal=consumer.principal,
    )
