"""The ledger of one node's consumers: what each has acknowledged, who left without a good-bye, and who is lost.

Silence is not consent: a consumer whose connection ended goes on calling by what it was shown last, until it comes
back or `lost_after` seconds have passed. Pure: every instant is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from adsum.consumers.consumer import Consumer
from adsum.consumers.mute_addresses import MAX_MUTES_PER_ADDRESS, MuteAddresses

MUTE_AFTER: Final = 30.0
"""Seconds for which a consumer may owe the acknowledgement of a drain; then it counts as lost until it acknowledges
again, so that one mute consumer can't make every drain take its whole wait."""
LOST_LISTED_FOR: Final = 60.0
"""Seconds for which a consumer that is lost is named; then it is forgotten."""
MAX_DEPARTED: Final = 100_000
"""How many duties of consumers that left are remembered. Past it the one that left first is forgotten, and if it is not
lost yet, the node waits for "somebody" instead, for as long as it would have waited for that one."""
MAX_GOODBYES: Final = 50_000
"""How many good-byes are remembered, one to several services counted for each; past it the first are forgotten, and
other nodes wait for those consumers."""

REASON_CONNECTED: Final = "it is connected, and has not acknowledged"
REASON_LEFT: Final = "its connection ended without a good-bye, and it has not come back"
REASON_MUTE: Final = f"it has not acknowledged for {MUTE_AFTER:g} s"
REASON_NEVER_ACKNOWLEDGED: Final = "it has acknowledged nothing since it came"
REASON_SUSPECT_ADDRESS: Final = f"{REASON_NEVER_ACKNOWLEDGED}, as {MAX_MUTES_PER_ADDRESS} before it from its address"
REASON_SILENT: Final = "its connection ended without a good-bye, and it did not come back in time"
REASON_RESTARTED: Final = "this node has only just started, and they may not have come back yet"
REASON_TOO_MANY_LEFT: Final = "more consumers left at a time than this node remembers"

Scope = str | None
"""What a duty is about: a service, or all of them (None)."""


class AckRecord:
    """What one consumer owes for one scope."""

    __slots__ = (
        "acknowledged",
        "connections",
        "consumer",
        "joined_at",
        "left_at",
        "never_acknowledged_since",
        "scope",
        "unacknowledged_since",
    )

    def __init__(self, consumer: Consumer, scope: Scope, now: float) -> None:
        self.consumer = consumer
        self.scope = scope
        self.acknowledged = 0
        """The revision that the consumer routes by, as far as it said."""
        self.connections = 0
        self.joined_at = now
        self.left_at = 0.0
        """When it was last heard over a connection that has ended."""
        self.never_acknowledged_since: float | None = now if consumer.acks_immediately else None
        """Since when it has acknowledged nothing; None: it has, or may take its time."""
        self.unacknowledged_since: float | None = None
        """Since when it owes an acknowledgement; None: no drain has found it behind since it acknowledged last."""


class PendingConsumer(NamedTuple):
    """A consumer that has not acknowledged: why it is waited for or lost, and since which instant."""

    consumer: Consumer
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class AckStatus:
    """Who has not acknowledged a revision of a service."""

    waiting: list[PendingConsumer]
    lost: list[PendingConsumer]
    pending_records: set[AckRecord | None]
    """The duties of those that are waited for; None stands for consumers that nobody knows."""
    next_loss_at: float
    """The instant at which one of them counts as lost if nothing happens."""


class _Goodbye(NamedTuple):
    services: frozenset[str] | None
    until: float

    @property
    def farewells(self) -> int:
        """How many services it is to; all of them count as one."""
        return len(self.services) if self.services is not None else 1


class AckLedger:
    """Every consumer of one node. `lost_after`: seconds without a word after which one that left is lost."""

    def __init__(self, lost_after: float) -> None:
        self.lost_after = lost_after
        self._by_scope: dict[Scope, dict[str, AckRecord]] = {}
        self._scopes: dict[str, set[Scope]] = {}
        self._departed: OrderedDict[AckRecord, None] = OrderedDict()
        """Duties without a connection, about in the order in which they were last heard."""
        self._departed_as: dict[tuple[str, str], dict[AckRecord, None]] = {}
        """The same duties, by the name and address of their consumer."""
        self._goodbyes: OrderedDict[str, _Goodbye] = OrderedDict()
        self._farewells = 0
        """How many services the good-byes are to, in all; one to all services counts once."""
        self._mutes = MuteAddresses()
        self._unknown = ("", "", 0.0)

    def connect(self, consumer: Consumer, services: Collection[str] | None, now: float) -> tuple[AckRecord, ...]:
        """A connection of the consumer begins: what it owes while that lasts, and afterwards."""
        self._forget_old(now)
        scopes: Iterable[Scope] = (None,) if services is None else services
        self._take_back_goodbye(consumer.id, services)
        return tuple(self._joined(consumer, scope, now) for scope in scopes)

    def disconnect(self, ack_records: Iterable[AckRecord], heard_at: float, now: float) -> None:
        """A connection over which the consumer was last heard at that instant has ended, without a good-bye."""
        for duty in ack_records:
            duty.connections -= 1
            if duty.never_acknowledged_since is not None and self._holds(duty):
                self._mutes.add(duty.consumer)
            duty.left_at = max(duty.left_at, heard_at)
            if not duty.connections and self._holds(duty):
                self._departed[duty] = None
                self._departed_as.setdefault(_known_as(duty), {})[duty] = None
        self._forget_old(now)

    def acknowledge(self, ack_records: Iterable[AckRecord], revision: int) -> None:
        """The consumer routes by that revision or a later one."""
        for duty in ack_records:
            duty.acknowledged = max(duty.acknowledged, revision)
            duty.unacknowledged_since = None
            if duty.never_acknowledged_since is not None:
                duty.never_acknowledged_since = None
                self._mutes.clear_address(duty.consumer)

    def say_goodbye(self, id: str, services: frozenset[str] | None, now: float) -> list[AckRecord]:
        """The consumer routes no more by what it was shown of these services (None: of any). What it owed till now."""
        scopes = self._scopes.get(id, set())
        ended = [self._by_scope[scope][id] for scope in scopes if services is None or scope in services]
        for duty in ended:
            self._mutes.remove(duty.consumer)
            self._remove(duty)
        before = self._forget_goodbye(id)
        if before is not None and before.services is not None and services is not None:
            services |= before.services
        elif before is not None:
            services = None
        self._remember(id, _Goodbye(services, now + self.lost_after))
        while self._farewells > MAX_GOODBYES:
            self._forget_goodbye(next(iter(self._goodbyes)))
        self._forget_old(now)
        return ended

    def acknowledge_elsewhere(
        self, ids: Iterable[str], service: str, revision: int, *, only_departed: bool
    ) -> list[AckRecord]:
        """Another node knows that these consumers route by that revision of the service. What that settles here."""
        found = [duty for id in ids for duty in self._of(id, service) if not (only_departed and duty.connections)]
        self.acknowledge(found, revision)
        return found

    def acknowledged_ids(self, ids: Iterable[str], service: str, revision: int) -> list[str]:
        """Those of these consumers that have acknowledged that revision of the service here."""
        return [id for id in ids if any(duty.acknowledged >= revision for duty in self._of(id, service))]

    def goodbye_ids(self, ids: Iterable[str], service: str, now: float) -> list[str]:
        """Those of these consumers that have said good-bye to the service here, and not come back."""
        return [id for id in ids if self._said_goodbye(id, service, now)]

    def find_departed(self, name: str, address: str, now: float) -> str | None:
        """The id of a consumer of that name and address that left and is still named; None: there is none.

        For clients that have a name but no id of their own: each that comes back takes the place of one that left.
        """
        self._forget_old(now)
        return next((duty.consumer.id for duty in self._departed_as.get((name, address), ())), None)

    def is_suspect(self, ack_record: AckRecord) -> bool:
        """Whether the duty's consumer has to acknowledge something before drains wait for it."""
        return ack_record.never_acknowledged_since is not None and self._mutes.is_suspect(ack_record.consumer)

    def review(self, service: str, revision: int, now: float) -> AckStatus:
        """Who has not acknowledged that revision of the service. From now on at the latest these owe it."""
        waiting, lost, until = dict[str, PendingConsumer](), dict[str, PendingConsumer](), float("inf")
        behind: set[AckRecord | None] = set()
        for scope in (service, None):
            for id, duty in self._by_scope.get(scope, {}).items():
                if duty.acknowledged >= revision:
                    continue
                lost_at, pending = self._stands(duty, now)
                if now >= lost_at:
                    if now < lost_at + LOST_LISTED_FOR or duty.connections:
                        lost[id] = pending
                else:
                    waiting[id] = pending
                    behind.add(duty)
                    until = min(until, lost_at)
        name, why, back_by = self._unknown
        if now < back_by:
            waiting[""] = PendingConsumer(Consumer("", name), why, back_by - self.lost_after)
            behind.add(None)
            until = min(until, back_by)
        only_lost = [pending for id, pending in lost.items() if id not in waiting]
        return AckStatus(list(waiting.values()), only_lost, behind, until)

    def note_restart(self, began: float) -> None:
        """Consumers were shown a catalog before the node began to serve: they may not have come back yet."""
        self._unknown = ("consumers of before the restart", REASON_RESTARTED, began + self.lost_after)

    def reset_revisions(self) -> None:
        """Revisions begin anew: what was acknowledged says nothing about them."""
        for duties in self._by_scope.values():
            for duty in duties.values():
                duty.acknowledged, duty.unacknowledged_since = 0, None

    @property
    def connected_count(self) -> int:
        """How many consumers are connected."""
        return sum(
            any(self._by_scope[scope][id].connections for scope in scopes) for id, scopes in self._scopes.items()
        )

    def departed_count(self, now: float) -> int:
        """How many consumers left without a good-bye, and are waited for."""
        return len({duty.consumer.id for duty in self._departed if now < duty.left_at + self.lost_after})

    def lost_count(self, now: float) -> int:
        """How many consumers are lost, and still named."""
        self._forget_old(now)
        gone = {duty.consumer.id for duty in self._departed if now >= duty.left_at + self.lost_after}
        return len(gone | {id for id in self._scopes if any(self._is_mute(duty, now) for duty in self._all_of(id))})

    def _joined(self, consumer: Consumer, scope: Scope, now: float) -> AckRecord:
        duties = self._by_scope.setdefault(scope, {})
        duty = duties.get(consumer.id)
        if duty is None:
            duty = duties[consumer.id] = AckRecord(consumer, scope, now)
            self._scopes.setdefault(consumer.id, set()).add(scope)
        elif not duty.connections:
            self._return(duty)
            if now >= duty.left_at + self.lost_after:
                duty.unacknowledged_since = None  # It was away, not mute.
                duty.never_acknowledged_since = now if duty.never_acknowledged_since is not None else None
        duty.consumer = consumer
        duty.joined_at = now
        duty.connections += 1
        return duty

    def _stands(self, duty: AckRecord, now: float) -> tuple[float, PendingConsumer]:
        """When the duty counts as lost, and how its consumer stands."""
        if duty.unacknowledged_since is None:
            duty.unacknowledged_since = now
        mute_at, why, since = duty.unacknowledged_since + MUTE_AFTER, REASON_MUTE, duty.unacknowledged_since
        if duty.never_acknowledged_since is not None:
            suspect, since = self.is_suspect(duty), duty.never_acknowledged_since
            mute_at, why = (
                (since, REASON_SUSPECT_ADDRESS) if suspect else (since + self.lost_after, REASON_NEVER_ACKNOWLEDGED)
            )
            if now >= mute_at:
                self._mutes.add(duty.consumer)
        if duty.connections:
            mute = now >= mute_at
            return mute_at, PendingConsumer(
                duty.consumer, why if mute else REASON_CONNECTED, since if mute else duty.joined_at
            )
        lost_at = min(mute_at, duty.left_at + self.lost_after)
        return lost_at, PendingConsumer(duty.consumer, REASON_LEFT if now < lost_at else REASON_SILENT, duty.left_at)

    def _is_mute(self, duty: AckRecord, now: float) -> bool:
        owes = duty.unacknowledged_since is not None and now >= duty.unacknowledged_since + MUTE_AFTER
        never = duty.never_acknowledged_since is not None and now >= duty.never_acknowledged_since + self.lost_after
        return bool(duty.connections) and (owes or never)

    def _of(self, id: str, service: str) -> Iterator[AckRecord]:
        for scope in (service, None):
            duty = self._by_scope.get(scope, {}).get(id)
            if duty is not None:
                yield duty

    def _all_of(self, id: str) -> Iterator[AckRecord]:
        return (self._by_scope[scope][id] for scope in self._scopes[id])

    def _holds(self, duty: AckRecord) -> bool:
        return self._by_scope.get(duty.scope, {}).get(duty.consumer.id) is duty

    def _remove(self, duty: AckRecord) -> None:
        id, duties = duty.consumer.id, self._by_scope[duty.scope]
        del duties[id]
        if not duties:
            del self._by_scope[duty.scope]
        self._scopes[id].discard(duty.scope)
        if not self._scopes[id]:
            del self._scopes[id]
        if duty in self._departed:
            self._return(duty)

    def _return(self, duty: AckRecord) -> None:
        """It no longer counts as one that left."""
        del self._departed[duty]
        there = self._departed_as[_known_as(duty)]
        del there[duty]
        if not there:
            del self._departed_as[_known_as(duty)]

    def _forget_old(self, now: float) -> None:
        """Let go of what nobody is told any more, and of what is too much."""
        while self._departed:
            duty = next(iter(self._departed))
            lost_at = duty.left_at + self.lost_after
            if len(self._departed) > MAX_DEPARTED and now < lost_at:
                self._unknown = ("consumers that left", REASON_TOO_MANY_LEFT, max(lost_at, self._unknown[2]))
            elif len(self._departed) <= MAX_DEPARTED and now < lost_at + LOST_LISTED_FOR:
                break
            self._remove(duty)
        while self._goodbyes and next(iter(self._goodbyes.values())).until <= now:
            self._forget_goodbye(next(iter(self._goodbyes)))

    def _remember(self, id: str, goodbye: _Goodbye) -> None:
        self._goodbyes[id] = goodbye
        self._farewells += goodbye.farewells

    def _forget_goodbye(self, id: str) -> _Goodbye | None:
        """The one that there was."""
        goodbye = self._goodbyes.pop(id, None)
        self._farewells -= goodbye.farewells if goodbye is not None else 0
        return goodbye

    def _said_goodbye(self, id: str, service: str, now: float) -> bool:
        goodbye = self._goodbyes.get(id)
        return goodbye is not None and now < goodbye.until and (goodbye.services is None or service in goodbye.services)

    def _take_back_goodbye(self, id: str, services: Collection[str] | None) -> None:
        goodbye = self._forget_goodbye(id)
        if goodbye is not None and goodbye.services is not None and services is not None:
            left = goodbye.services.difference(services)
            if left:
                self._remember(id, goodbye._replace(services=left))


def _known_as(duty: AckRecord) -> tuple[str, str]:
    return duty.consumer.name, duty.consumer.address
