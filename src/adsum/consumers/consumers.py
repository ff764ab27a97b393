"""The consumers of one node, and waiting until all of them route by a revision."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from adsum.consumers.ack_ledger import AckLedger, AckRecord, AckStatus
from adsum.consumers.ack_report import ConsumerHints
from adsum.consumers.consumer import Consumer
from adsum.ports import Clock

MIN_REVIEW_INTERVAL: Final = 0.2
"""Seconds between two reviews of everybody while a drain waits and nobody acknowledges: many that left one after the
other are lost one after the other, too."""


@dataclass(slots=True, eq=False)
class _Wait:
    """A drain that waits until the duties `behind` are settled; None among them stands for consumers nobody knows."""

    service: str
    revision: int
    behind: set[AckRecord | None] = field(default_factory=set)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, duty: AckRecord) -> None:
        if duty.scope in (None, self.service) and duty.acknowledged < self.revision:
            self.behind.add(duty)

    def settle(self, duty: AckRecord) -> None:
        self.behind.discard(duty)
        if not self.behind:
            self.moved.set()


class Consumers:
    """The consumers of one node. Implements what `watches` and the dialects say of them."""

    def __init__(self, clock: Clock, lost_after: float) -> None:
        """`lost_after`: seconds without a word after which a consumer that left is no longer waited for."""
        self._clock = clock
        self._ledger = AckLedger(lost_after)
        self._waits: set[_Wait] = set()
        self._began = clock.now()

    @property
    def lost_after(self) -> float:
        """Seconds without a word after which a consumer that left is no longer waited for."""
        return self._ledger.lost_after

    def connect(self, consumer: Consumer, services: Collection[str] | None) -> tuple[AckRecord, ...]:
        """A connection of the consumer begins, about these services (None: about all)."""
        duties = self._ledger.connect(consumer, services, self._clock.now())
        for wait in self._waits:
            for duty in duties:  # Whoever comes now may come back, and route by what it was shown before.
                if not self._ledger.is_suspect(duty):
                    wait.expect(duty)
        return duties

    def disconnect(self, ack_records: Iterable[AckRecord], *, silent: bool) -> None:
        """A connection has ended without a good-bye. `silent`: nothing was heard over it for `lost_after` seconds."""
        now = self._clock.now()
        self._ledger.disconnect(ack_records, now - self.lost_after if silent else now, now)
        if silent:
            for wait in self._waits:
                wait.moved.set()

    def acknowledge(self, ack_records: Collection[AckRecord], revision: int) -> None:
        """The consumer routes by that revision or a later one."""
        self._ledger.acknowledge(ack_records, revision)
        self._settle(ack_records)

    def say_goodbye(self, id: str, services: frozenset[str] | None) -> None:
        """The consumer routes no more by what it was shown of these services (None: of any)."""
        ended = self._ledger.say_goodbye(id, services, self._clock.now())
        for wait in self._waits:
            for duty in ended:
                wait.settle(duty)

    def find_departed(self, name: str, address: str) -> str | None:
        """See `AckLedger.returning`."""
        return self._ledger.find_departed(name, address, self._clock.now())

    def start(self) -> None:
        """The node serves from now on."""
        self._began = self._clock.now()

    def note_restart(self) -> None:
        """Consumers were shown a catalog before the node began to serve: they may not have come back yet.

        So it is if the node found a catalog when it started, and if somebody speaks of what it never knew: then it
        lost its state. Nothing happens once they would be lost.
        """
        if self._clock.now() < self._began + self.lost_after:
            self._ledger.note_restart(self._began)

    def reset_revisions(self) -> None:
        """Revisions begin anew: what was acknowledged says nothing about them."""
        self._ledger.reset_revisions()

    def apply_hints(self, service: str, revision: int, hints: ConsumerHints) -> None:
        """Take in what another node knows of consumers that are waited for here."""
        for ids, only_departed in ((hints.acknowledged, False), (hints.goodbyes, True)):
            settled = self._ledger.acknowledge_elsewhere(ids, service, revision, only_departed=only_departed)
            self._settle(settled)

    def hints_for(self, ids: Collection[str], service: str, revision: int) -> ConsumerHints:
        """What is known here of consumers that are waited for at other nodes."""
        acknowledged = self._ledger.acknowledged_ids(ids, service, revision)
        return ConsumerHints(acknowledged, self._ledger.goodbye_ids(ids, service, self._clock.now()))

    async def wait_for_acknowledgements(self, service: str, revision: int, wait: float) -> AckStatus:
        """Return once every cooperating consumer of the service routes by that revision, or after `wait` seconds.

        Says who still does not, and who is lost.
        """
        deadline = self._clock.now() + wait
        waiting = _Wait(service, revision)
        self._waits.add(waiting)
        try:
            while True:
                now = self._clock.now()
                standing = self._ledger.review(service, revision, now)
                if not standing.waiting or now >= deadline:
                    return standing
                waiting.behind = standing.pending_records
                waiting.moved.clear()
                # Nobody who leaves from now on is lost before that.
                until = min(standing.next_loss_at, now + self.lost_after)
                await self._moved(waiting, min(deadline, max(until, now + MIN_REVIEW_INTERVAL)) - now)
        finally:
            self._waits.discard(waiting)

    @property
    def connected_count(self) -> int:
        """How many consumers are connected."""
        return self._ledger.connected_count

    @property
    def departed_count(self) -> int:
        """How many consumers left without a good-bye, and are waited for."""
        return self._ledger.departed_count(self._clock.now())

    @property
    def lost_count(self) -> int:
        """How many consumers are no longer waited for, and still named."""
        return self._ledger.lost_count(self._clock.now())

    async def _moved(self, waiting: _Wait, timeout: float) -> None:
        """Return when nobody is behind any more, or after `timeout` seconds."""
        moved = asyncio.ensure_future(waiting.moved.wait())
        late = asyncio.ensure_future(self._clock.sleep(timeout))
        try:
            await asyncio.wait((moved, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            moved.cancel()
            late.cancel()

    def _settle(self, duties: Iterable[AckRecord]) -> None:
        for wait in self._waits:
            for duty in duties:
                if duty.scope in (None, wait.service) and duty.acknowledged >= wait.revision:
                    wait.settle(duty)
