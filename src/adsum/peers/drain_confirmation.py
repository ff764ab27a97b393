"""Confirming a drain across the nodes of one registry, in short rounds.

Each node waits for its own consumers. A consumer may be waited for at one node, since it was cut off from that one, and
have acknowledged at another: so the nodes are asked about one another's consumers, and told what was found.
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
"""Seconds that one round of questions waits; then the nodes are asked again, with what the others said."""
IMMEDIATE_ROUNDS: Final = 2
"""Rounds that don't wait: one to hear who is waited for or lost where, and one to look for these at the other nodes."""
MAX_ANSWER_DELAY: Final = 0.4
"""Seconds by which a node may answer a question later than it was told to wait; then it counts as silent."""
MAX_SILENCE_GAP: Final = 2.0
"""Seconds between two questions that a node did not answer, past which its silence counts as a new one: it may have
lived in between. Questions of one drain, and of drains that follow one another, are closer together."""
THIS_NODE: Final = ""
"""In place of the id of a node: this one."""


@dataclass(frozen=True, slots=True)
class QueriedPeer:
    """Another node, and how it is asked. `left`: how many seconds ago its session ended; None: it has not."""

    peer: Peer
    query: AckQuery
    left_ago: float | None = None


@dataclass(slots=True)
class _Silence:
    """A node does not answer: from the first question that it did not answer until the last one."""

    began: float
    last: float


class DrainConfirmation:
    """Waits for the consumers of all nodes. A node that can't be asked is waited for as if it were a consumer."""

    def __init__(self, clock: Clock, lost_after: float) -> None:
        """`lost_after`: seconds without a word after which a consumer, or a node, is no longer waited for."""
        self._clock = clock
        self._lost_after = lost_after
        self._silences: dict[str, _Silence] = {}
        self._heard: dict[str, float] = {}
        """When a node answered last."""

    async def wait_for_acknowledgements(
        self,
        query_here: AckQuery,
        list_peers: Callable[[], Sequence[QueriedPeer]],
        service: str,
        revision: int,
        wait: float,
    ) -> wire.AcknowledgementReport:
        """Which consumers don't route by that revision after `wait` seconds, or at latest a second later."""
        deadline = self._clock.now() + wait
        about, hints = dict[str, Sequence[str]](), dict[str, ConsumerHints]()
        for number in itertools.count(1):
            began = self._clock.now()
            there = self._of_interest(list_peers())
            self._forget_others(there)
            left = max(0.0, deadline - began)
            if not there:
                return await query_here(service, revision, left, (), hints.get(THIS_NODE, ConsumerHints()))
            brief = min(ROUND_WAIT, left) if number > IMMEDIATE_ROUNDS else 0.0
            answers = await self._round(query_here, there, service, revision, brief, about, hints)
            found, now = merge_reports(list(answers.values())), self._clock.now()
            told = number > IMMEDIATE_ROUNDS or not any(each.id for each in found.lost)
            if now >= deadline or (not found.unacknowledged and told):
                return found
            about, hints = _questions(answers), _hints(answers)
            if number > IMMEDIATE_ROUNDS:
                await self._clock.sleep(min(began + ROUND_WAIT, deadline) - now)
        raise AssertionError

    async def _round(
        self,
        ask_here: AckQuery,
        there: Sequence[QueriedPeer],
        service: str,
        revision: int,
        wait: float,
        about: Mapping[str, Sequence[str]],
        hints: Mapping[str, ConsumerHints],
    ) -> dict[str, wire.AcknowledgementReport]:
        """What each node says, by its id."""
        ids = [THIS_NODE, *(each.peer.id for each in there)]
        asks = [ask_here, *(self._bounded(each) for each in there)]
        answers = await asyncio.gather(
            *(
                ask(service, revision, wait, about.get(id, ()), hints.get(id, ConsumerHints()))
                for id, ask in zip(ids, asks, strict=True)
            )
        )
        return dict(zip(ids, answers, strict=True))

    def _bounded(self, neighbour: QueriedPeer) -> AckQuery:
        """Ask it, and say how it stands if it does not answer in time."""

        async def ask(
            service: str, revision: int, wait: float, about: Sequence[str], hints: ConsumerHints
        ) -> wire.AcknowledgementReport:
            asked_at = self._clock.now()
            asking = asyncio.ensure_future(neighbour.query(service, revision, wait, about, hints))
            late = asyncio.ensure_future(self._clock.sleep(wait + MAX_ANSWER_DELAY))
            try:
                await asyncio.wait((asking, late), return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    return self._silent(neighbour, asked_at, "it did not answer in time")
                answer = asking.result()
            except AdsumError as error:
                return self._silent(neighbour, asked_at, str(error))
            finally:
                asking.cancel()
                late.cancel()
            self._silences.pop(neighbour.peer.id, None)
            self._heard[neighbour.peer.id] = self._clock.now()
            return answer

        return ask

    def _silent(self, neighbour: QueriedPeer, asked_at: float, why: str) -> wire.AcknowledgementReport:
        """How a node stands that does not answer: like a consumer of which nothing is heard."""
        now, peer = self._clock.now(), neighbour.peer
        silence = self._silences.get(peer.id)
        if silence is None or asked_at - silence.last > MAX_SILENCE_GAP:
            silence = self._silences[peer.id] = _Silence(asked_at, asked_at)
        silence.last = asked_at
        since = silence.began
        if neighbour.left_ago is not None:
            why = f"it left {neighbour.left_ago:.0f} s ago"
            since = min(since, max(now - neighbour.left_ago, self._heard.get(peer.id, 0.0)))
        view = wire.ConsumerView(
            name=peer.name,
            address=peer.url,
            node=peer.name,
            reason=f"this node can't say what its consumers have acknowledged: {why}",
            since=round(since + self._clock.wall() - now, 3),
        )
        if now < since + self._lost_after:
            return wire.AcknowledgementReport("", 0, 1, [view])
        return wire.AcknowledgementReport("", 0, 0, [], [view], 1)

    def _of_interest(self, neighbours: Sequence[QueriedPeer]) -> list[QueriedPeer]:
        """All but the nodes that left and are back for so long that their consumers were heard of or are lost."""
        back = {each.peer.name for each in neighbours if each.left_ago is None}
        return [
            each
            for each in neighbours
            if each.left_ago is None or each.left_ago <= 2 * self._lost_after or each.peer.name not in back
        ]

    def _forget_others(self, there: Sequence[QueriedPeer]) -> None:
        known = {each.peer.id for each in there}
        for memory in (self._silences, self._heard):
            for id in [id for id in memory if id not in known]:
                del memory[id]


def _questions(answers: Mapping[str, wire.AcknowledgementReport]) -> dict[str, Sequence[str]]:
    """What to ask each node: about the consumers that are waited for at the others."""
    return {
        node: truncate_ids(id for other, answer in answers.items() if other != node for id in answer.ids)
        for node in answers
    }


def _hints(answers: Mapping[str, wire.AcknowledgementReport]) -> dict[str, ConsumerHints]:
    """What to tell each node: which of its consumers have acknowledged, or said good-bye, at another one."""
    found = {}
    for node, answer in answers.items():
        its, others = set(answer.ids), [each for other, each in answers.items() if other != node]
        acknowledged = truncate_ids(id for each in others for id in each.acknowledged if id in its)
        gone = truncate_ids(id for each in others for id in each.goodbyes if id in its)
        found[node] = ConsumerHints(acknowledged, gone)
    return found
