"""The consumers of one node, and the drains that wait until all of them route by a revision."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from adsum.consumers.ack_ledger import AckLedger, AckStatus
from adsum.consumers.ack_record import AckRecord
from adsum.consumers.ack_report import ConsumerHints
from adsum.consumers.consumer import Consumer
from adsum.ports import Clock

MIN_REVIEW_INTERVAL: Final = 0.2
"""Seconds between two reviews of all consumers while a drain waits. Without it, many consumers that left one after the
other would each cause a review when they are lost."""


@dataclass(slots=True, eq=False)
class _Wait:
    """A drain that waits until the records `behind` are settled. None stands for unknown consumers."""

    service: str
    revision: int
    behind: set[AckRecord | None] = field(default_factory=set)
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, record: AckRecord) -> None:
        if record.concerns(self.service) and record.acknowledged < self.revision:
            self.behind.add(record)

    def settle(self, record: AckRecord) -> None:
        self.behind.discard(record)
        if not self.behind:
            self.wakeup.set()


class Consumers:
    """The consumers of one node, their acknowledgements, and the drains that wait for them."""

    def __init__(self, clock: Clock, lost_after: float) -> None:
        """`lost_after`: seconds of silence after which drains no longer wait for a consumer that left."""
        self._clock = clock
        self._ledger = AckLedger(lost_after)
        self._waits: set[_Wait] = set()
        self._started_at = clock.now()

    @property
    def lost_after(self) -> float:
        """Seconds of silence after which drains no longer wait for a consumer that left."""
        return self._ledger.lost_after

    def connect(self, consumer: Consumer, services: Collection[str] | None) -> tuple[AckRecord, ...]:
        """Adds a connection of the consumer for these services (None: all). Returns its records."""
        records = self._ledger.connect(consumer, services, self._clock.now())
        for wait in self._waits:
            for record in records:  # The consumer may have come back, and route by a view from before.
                if not self._ledger.is_suspect(record):
                    wait.expect(record)
        return records

    def disconnect(self, ack_records: Iterable[AckRecord], *, silent: bool) -> None:
        """Removes a connection that ended without a good-bye. `silent`: it was silent for `lost_after` seconds."""
        now = self._clock.now()
        self._ledger.disconnect(ack_records, now - self.lost_after if silent else now, now)
        if silent:
            for wait in self._waits:
                wait.wakeup.set()

    def acknowledge(self, ack_records: Collection[AckRecord], revision: int) -> None:
        """Records that the consumer routes by that revision or a later one."""
        self._ledger.acknowledge(ack_records, revision)
        self._settle(ack_records)

    def say_goodbye(self, id: str, services: frozenset[str] | None) -> None:
        """Records that the consumer no longer routes by its views of these services (None: of any)."""
        ended = self._ledger.say_goodbye(id, services, self._clock.now())
        for wait in self._waits:
            for record in ended:
                wait.settle(record)

    def find_departed(self, name: str, address: str, principal: str = "") -> str | None:
        """See `AckLedger.find_departed`."""
        return self._ledger.find_departed(name, address, self._clock.now(), principal)

    def start(self) -> None:
        """Records that the node serves from now on."""
        self._started_at = self._clock.now()

    def note_restart(self) -> None:
        """Records that consumers may have views from before the node started, and may not have come back yet.

        This is so if the node found a catalog when it started, or if a client names what the node never knew: then it
        lost its state. It has no effect once such consumers would be lost.
        """
        if self._clock.now() < self._started_at + self.lost_after:
            self._ledger.note_restart(self._started_at)

    def reset_revisions(self) -> None:
        """Resets all acknowledgements, because revisions start again in a new epoch."""
        self._ledger.reset_revisions()

    def apply_hints(self, service: str, revision: int, hints: ConsumerHints) -> None:
        """Applies what other nodes know about consumers that are waited for at this node."""
        for ids, only_departed in ((hints.acknowledged, False), (hints.goodbyes, True)):
            records = self._ledger.acknowledge_elsewhere(ids, service, revision, only_departed=only_departed)
            self._settle(records)

    def hints_for(self, ids: Collection[str], service: str, revision: int) -> ConsumerHints:
        """Returns what this node knows about consumers that are waited for at other nodes."""
        acknowledged = self._ledger.acknowledged_ids(ids, service, revision)
        return ConsumerHints(acknowledged, self._ledger.goodbye_ids(ids, service, self._clock.now()))

    async def wait_for_acknowledgements(self, service: str, revision: int, wait: float) -> AckStatus:
        """Waits until every cooperating consumer of the service routes by that revision, or for `wait` seconds.

        Returns the consumers that still do not, and the lost ones.
        """
        deadline = self._clock.now() + wait
        pending_wait = _Wait(service, revision)
        self._waits.add(pending_wait)
        try:
            while True:
                now = self._clock.now()
                status = self._ledger.review(service, revision, now)
                if not status.waiting or now >= deadline:
                    return status
                pending_wait.behind = status.pending_records
                pending_wait.wakeup.clear()
                # No consumer that leaves from now on is lost before `now + lost_after`.
                next_review = min(status.next_loss_at, now + self.lost_after)
                await self._wakeup(pending_wait, min(deadline, max(next_review, now + MIN_REVIEW_INTERVAL)) - now)
        finally:
            self._waits.discard(pending_wait)

    @property
    def connected_count(self) -> int:
        """The number of connected consumers."""
        return self._ledger.connected_count

    @property
    def departed_count(self) -> int:
        """The number of consumers that left without a good-bye and are waited for."""
        return self._ledger.departed_count(self._clock.now())

    @property
    def lost_count(self) -> int:
        """The number of lost consumers that are still listed."""
        return self._ledger.lost_count(self._clock.now())

    async def _wakeup(self, wait: _Wait, timeout: float) -> None:
        """Returns when no consumer is behind any more, when one was lost in silence, or after `timeout` seconds."""
        wakeup = asyncio.ensure_future(wait.wakeup.wait())
        timer = asyncio.ensure_future(self._clock.sleep(timeout))
        try:
            await asyncio.wait((wakeup, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            wakeup.cancel()
            timer.cancel()

    def _settle(self, records: Iterable[AckRecord]) -> None:
        for wait in self._waits:
            for record in records:
                # A consumer whose rights became narrower has acknowledged that it no longer routes to the service.
                if record.acknowledged >= wait.revision or not record.concerns(wait.service):
                    wait.settle(record)
