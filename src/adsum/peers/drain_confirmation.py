"""The confirmation of a drain across the nodes of one registry, in short rounds.

Each node waits for its own consumers. One node may wait for a consumer that was cut off from it and has acknowledged at
another node. So each node is also queried about the consumers of the others, and receives the results as hints.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.consumers import AckQuery, ConsumerHints, merge_reports, truncate_ids
from adsum.core.errors import AdsumError
from adsum.core.nodes.sharding import Peer
from adsum.ports import Clock

ROUND_WAIT: Final = 0.5
"""Seconds that the nodes wait in one round. The next round queries them again, with the hints of this one."""
IMMEDIATE_ROUNDS: Final = 2
"""Rounds that don't wait. The first finds out which consumers are waited for or lost at which nodes, and the second
looks for these at the other nodes."""
MAX_ANSWER_DELAY: Final = 0.4
"""Seconds after the requested wait within which a node must answer. Then it counts as silent."""
MAX_SILENCE_GAP: Final = 2.0
"""Seconds between two unanswered queries of one silence. After a longer gap a new silence starts, since the node may
have lived in between. The queries of one drain, and of successive drains, are closer together."""
THIS_NODE: Final = ""
"""Stands for the id of this node."""


@dataclass(frozen=True, slots=True)
class QueriedPeer:
    """Another node, and the function that queries it. `left_ago`: seconds since its session ended; None: it has not."""

    peer: Peer
    query: AckQuery
    left_ago: float | None = None


@dataclass(slots=True)
class _Silence:
    """The silence of a node, from its first unanswered query to the last one."""

    first: float
    last: float


class DrainConfirmation:
    """Waits for the consumers of all nodes. It waits for a node that does not answer as for a consumer."""

    def __init__(self, clock: Clock, lost_after: float) -> None:
        """`lost_after`: seconds of silence after which a consumer, or a node, is no longer waited for."""
        self._clock = clock
        self._lost_after = lost_after
        self._silences: dict[str, _Silence] = {}
        self._answered_at: dict[str, float] = {}
        """The instant at which each node answered last."""

    async def wait_for_acknowledgements(
        self,
        query_here: AckQuery,
        list_peers: Callable[[], Sequence[QueriedPeer]],
        service: str,
        revision: int,
        wait: float,
    ) -> wire.AcknowledgementReport:
        """Waits until the consumers of all nodes route by the revision, or for `wait` seconds and at most one more.

        Returns the consumers that do not. `query_here` queries this node, and `list_peers` lists the other nodes.
        """
        deadline = self._clock.now() + wait
        ids, hints = dict[str, Sequence[str]](), dict[str, ConsumerHints]()
        for number in itertools.count(1):
            started_at = self._clock.now()
            peers = self._relevant(list_peers())
            self._forget_others(peers)
            remaining = max(0.0, deadline - started_at)
            if not peers:
                return await query_here(service, revision, remaining, (), hints.get(THIS_NODE, ConsumerHints()))
            round_wait = min(ROUND_WAIT, remaining) if number > IMMEDIATE_ROUNDS else 0.0
            reports = await self._round(query_here, peers, service, revision, round_wait, ids, hints)
            merged, now = merge_reports(list(reports.values())), self._clock.now()
            # A lost consumer may have acknowledged at another node: the second round finds out.
            is_final = number > IMMEDIATE_ROUNDS or not any(view.id for view in merged.lost)
            if now >= deadline or (not merged.unacknowledged and is_final):
                return merged
            ids, hints = _ids_to_query(reports), _hints(reports)
            if number > IMMEDIATE_ROUNDS:
                await self._clock.sleep(min(started_at + ROUND_WAIT, deadline) - now)
        raise AssertionError

    async def _round(
        self,
        query_here: AckQuery,
        peers: Sequence[QueriedPeer],
        service: str,
        revision: int,
        wait: float,
        ids: Mapping[str, Sequence[str]],
        hints: Mapping[str, ConsumerHints],
    ) -> dict[str, wire.AcknowledgementReport]:
        """Returns the report of each node, by its id."""
        nodes = [THIS_NODE, *(queried.peer.id for queried in peers)]
        queries = [query_here, *(self._bounded(queried) for queried in peers)]
        reports = await asyncio.gather(
            *(
                query(service, revision, wait, ids.get(node, ()), hints.get(node, ConsumerHints()))
                for node, query in zip(nodes, queries, strict=True)
            )
        )
        return dict(zip(nodes, reports, strict=True))

    def _bounded(self, queried: QueriedPeer) -> AckQuery:
        """Returns a query that answers in time in place of a silent node."""

        async def query(
            service: str, revision: int, wait: float, ids: Sequence[str], hints: ConsumerHints
        ) -> wire.AcknowledgementReport:
            queried_at = self._clock.now()
            request = asyncio.ensure_future(queried.query(service, revision, wait, ids, hints))
            timer = asyncio.ensure_future(self._clock.sleep(wait + MAX_ANSWER_DELAY))
            try:
                await asyncio.wait((request, timer), return_when=asyncio.FIRST_COMPLETED)
                if not request.done():
                    return self._silence_report(queried, queried_at, "it did not answer in time")
                report = request.result()
            except AdsumError as error:
                return self._silence_report(queried, queried_at, str(error))
            finally:
                request.cancel()
                timer.cancel()
            self._silences.pop(queried.peer.id, None)
            self._answered_at[queried.peer.id] = self._clock.now()
            return report

        return query

    def _silence_report(self, queried: QueriedPeer, queried_at: float, problem: str) -> wire.AcknowledgementReport:
        """Returns the report of a node that does not answer: the node counts like a silent consumer."""
        now, peer = self._clock.now(), queried.peer
        silence = self._silences.get(peer.id)
        if silence is None or queried_at - silence.last > MAX_SILENCE_GAP:
            silence = self._silences[peer.id] = _Silence(queried_at, queried_at)
        silence.last = queried_at
        since = silence.first
        if queried.left_ago is not None:
            problem = f"it left {queried.left_ago:.0f} s ago"
            since = min(since, max(now - queried.left_ago, self._answered_at.get(peer.id, 0.0)))
        view = wire.ConsumerView(
            name=peer.name,
            address=peer.url,
            node=peer.name,
            reason=f"this node does not report what its consumers have acknowledged: {problem}",
            since=round(since + self._clock.wall() - now, 3),
        )
        if now < since + self._lost_after:
            return wire.AcknowledgementReport("", 0, 1, [view])
        return wire.AcknowledgementReport("", 0, 0, [], [view], 1)

    def _relevant(self, peers: Sequence[QueriedPeer]) -> list[QueriedPeer]:
        """Leaves out runs of nodes that left so long ago that their consumers are lost, if the node is back."""
        present = {queried.peer.name for queried in peers if queried.left_ago is None}
        return [
            queried
            for queried in peers
            if queried.left_ago is None or queried.left_ago <= 2 * self._lost_after or queried.peer.name not in present
        ]

    def _forget_others(self, peers: Sequence[QueriedPeer]) -> None:
        known = {queried.peer.id for queried in peers}
        for by_id in (self._silences, self._answered_at):
            for id in [id for id in by_id if id not in known]:
                del by_id[id]


def _ids_to_query(reports: Mapping[str, wire.AcknowledgementReport]) -> dict[str, Sequence[str]]:
    """Returns the consumers to query each node about: those that the other nodes wait for or have lost."""
    return {
        node: truncate_ids(id for other, report in reports.items() if other != node for id in report.ids)
        for node in reports
    }


def _hints(reports: Mapping[str, wire.AcknowledgementReport]) -> dict[str, ConsumerHints]:
    """Returns the hints for each node: its consumers that have acknowledged, or said good-bye, at another node."""
    hints = {}
    for node, report in reports.items():
        ids, others = set(report.ids), [other for name, other in reports.items() if name != node]
        acknowledged = truncate_ids(id for other in others for id in other.acknowledged if id in ids)
        goodbyes = truncate_ids(id for other in others for id in other.goodbyes if id in ids)
        hints[node] = ConsumerHints(acknowledged, goodbyes)
    return hints
