"""The ledger of one node's consumers: which have acknowledged, which left without a good-bye, and which are lost.

Silence is no acknowledgement. A consumer whose connection ended goes on calling by its last view until it comes back,
or until `lost_after` seconds have passed. Pure: every instant is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from adsum.consumers.ack_record import AckRecord, Scope
from adsum.consumers.consumer import Consumer
from adsum.consumers.mute_addresses import MAX_MUTES_PER_ADDRESS, MuteAddresses
from adsum.core.access.scopes import ALL_NAMES, NO_NAMES

MUTE_AFTER: Final = 30.0
"""Seconds that a connected consumer has to acknowledge a drain. Then it counts as lost until it acknowledges again, so
that one mute consumer can't make every drain take its whole wait."""
LOST_LISTED_FOR: Final = 60.0
"""Seconds for which a lost consumer is listed. Then it is forgotten."""
MAX_DEPARTED_RECORDS: Final = 100_000
"""Records of consumers that left. Past it the one that left first is forgotten. If it is not lost yet, drains wait for
"consumers that left" in its place, for as long as they would have waited for it."""
MAX_GOODBYES: Final = 50_000
"""Services of all remembered good-byes; a good-bye to all services counts as one. Past it the oldest good-byes are
forgotten, and other nodes wait for those consumers."""

REASON_CONNECTED: Final = "it is connected, and has not acknowledged"
REASON_LEFT: Final = "its connection ended without a good-bye, and it has not come back"
REASON_MUTE: Final = f"it has not acknowledged for {MUTE_AFTER:g} s"
REASON_NEVER_ACKNOWLEDGED: Final = "it has acknowledged nothing since it connected"
REASON_SUSPECT_ADDRESS: Final = (
    f"{REASON_NEVER_ACKNOWLEDGED}, like the {MAX_MUTES_PER_ADDRESS} consumers before it from its address"
)
REASON_SILENT: Final = "its connection ended without a good-bye, and it did not come back in time"
REASON_RESTARTED: Final = "this node has only just started, and they may not have come back yet"
REASON_TOO_MANY_LEFT: Final = "more consumers left at the same time than this node remembers"


class PendingConsumer(NamedTuple):
    """A consumer that has not acknowledged, with the reason why it is waited for or lost, and since when."""

    consumer: Consumer
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class AckStatus:
    """The consumers that have not acknowledged a revision of a service."""

    waiting: list[PendingConsumer]
    lost: list[PendingConsumer]
    pending_records: set[AckRecord | None]
    """The records of the consumers that are waited for. None stands for consumers that the node does not know."""
    next_loss_at: float
    """The instant at which the first of them counts as lost if nothing happens."""


class _Goodbye(NamedTuple):
    services: frozenset[str] | None
    until: float

    @property
    def service_count(self) -> int:
        """The number of services; all services count as one."""
        return len(self.services) if self.services is not None else 1


class AckLedger:
    """The records of all consumers of one node.

    A consumer that left is lost after `lost_after` seconds of silence.
    """

    def __init__(self, lost_after: float) -> None:
        self.lost_after = lost_after
        self._by_scope: dict[Scope, dict[str, AckRecord]] = {}
        self._scopes: dict[str, tuple[Scope, ...]] = {}
        """The scopes of each consumer: a tuple, since most consumers have few."""
        self._departed: OrderedDict[AckRecord, None] = OrderedDict()
        """Records without a connection, roughly in the order of their last signs of life."""
        self._departed_by_name: dict[tuple[str, str], dict[AckRecord, None]] = {}
        """The same records, by the name and address of their consumer."""
        self._goodbyes: OrderedDict[str, _Goodbye] = OrderedDict()
        self._goodbye_services = 0
        """The services of all good-byes."""
        self._mutes = MuteAddresses()
        self._unknown = ("", "", 0.0)

    def connect(self, consumer: Consumer, services: Collection[str] | None, now: float) -> tuple[AckRecord, ...]:
        """Adds a connection of the consumer. Returns its records, which outlive the connection."""
        self._forget_old(now)
        scopes: Iterable[Scope] = (None,) if services is None else services
        self._withdraw_goodbye(consumer.id, services)
        return tuple(self._connect(consumer, scope, now) for scope in scopes)

    def disconnect(self, ack_records: Iterable[AckRecord], alive_at: float, now: float) -> None:
        """Removes a connection that ended without a good-bye. Its last sign of life was at `alive_at`."""
        for record in ack_records:
            record.connections -= 1
            if record.never_acknowledged_since is not None and self._holds(record):
                self._mutes.add(record.consumer)
            record.left_at = max(record.left_at, alive_at)
            if not record.connections and self._holds(record):
                self._departed[record] = None
                self._departed_by_name.setdefault(_name_and_address(record), {})[record] = None
        self._forget_old(now)

    def acknowledge(self, ack_records: Iterable[AckRecord], revision: int) -> None:
        """Records that the consumer routes by that revision or a later one."""
        for record in ack_records:
            record.acknowledged = max(record.acknowledged, revision)
            record.former_visible = NO_NAMES
            record.unacknowledged_since = None
            if record.never_acknowledged_since is not None:
                record.never_acknowledged_since = None
                self._mutes.clear_address(record.consumer)

    def say_goodbye(self, id: str, services: frozenset[str] | None, now: float) -> list[AckRecord]:
        """Removes the records of a consumer that no longer routes by its views of these services (None: of any).

        Returns the removed records.
        """
        scopes = self._scopes.get(id, ())
        ended = [self._by_scope[scope][id] for scope in scopes if services is None or scope in services]
        for record in ended:
            self._mutes.remove(record.consumer)
            self._remove(record)
        before = self._forget_goodbye(id)
        if before is not None and before.services is not None and services is not None:
            services |= before.services
        elif before is not None:
            services = None
        self._remember(id, _Goodbye(services, now + self.lost_after))
        while self._goodbye_services > MAX_GOODBYES:
            self._forget_goodbye(next(iter(self._goodbyes)))
        self._forget_old(now)
        return ended

    def acknowledge_elsewhere(
        self, ids: Iterable[str], service: str, revision: int, *, only_departed: bool
    ) -> list[AckRecord]:
        """Records acknowledgements that another node received. Returns the records of this node that they change.

        `only_departed` leaves out consumers that are connected to this node.
        """
        records = [
            record for id in ids for record in self._records(id, service) if not (only_departed and record.connections)
        ]
        self.acknowledge(records, revision)
        return records

    def acknowledged_ids(self, ids: Iterable[str], service: str, revision: int) -> list[str]:
        """Returns those of these consumers that have acknowledged the revision of the service at this node."""
        return [id for id in ids if any(record.acknowledged >= revision for record in self._records(id, service))]

    def goodbye_ids(self, ids: Iterable[str], service: str, now: float) -> list[str]:
        """Returns those of these consumers that said good-bye to the service at this node and have not come back."""
        return [id for id in ids if self._said_goodbye(id, service, now)]

    def find_departed(self, name: str, address: str, now: float, principal: str = "") -> str | None:
        """Returns the id of a remembered consumer with this name and address that left; None if there is none.

        It serves clients that have a name but no id. A client that comes back takes the id of one that left, if it
        proves to be the same principal.
        """
        self._forget_old(now)
        departed = self._departed_by_name.get((name, address), ())
        return next((record.consumer.id for record in departed if record.consumer.principal == principal), None)

    def is_suspect(self, ack_record: AckRecord) -> bool:
        """Returns whether the consumer has to acknowledge something before drains wait for it."""
        return ack_record.never_acknowledged_since is not None and self._mutes.is_suspect(ack_record.consumer)

    def review(self, service: str, revision: int, now: float) -> AckStatus:
        """Returns the consumers that have not acknowledged the revision of the service.

        It also starts the time that each of them has to acknowledge, unless it has started before.
        """
        waiting, lost, next_loss_at = dict[str, PendingConsumer](), dict[str, PendingConsumer](), float("inf")
        behind: set[AckRecord | None] = set()
        for scope in (service, None):
            for id, record in self._by_scope.get(scope, {}).items():
                if record.acknowledged >= revision or not record.concerns(service):
                    continue
                lost_at, pending = self._pending(record, now)
                if now >= lost_at:
                    if now < lost_at + LOST_LISTED_FOR or record.connections:
                        lost[id] = pending
                else:
                    waiting[id] = pending
                    behind.add(record)
                    next_loss_at = min(next_loss_at, lost_at)
        name, reason, lost_at = self._unknown
        if now < lost_at:
            waiting[""] = PendingConsumer(Consumer("", name), reason, lost_at - self.lost_after)
            behind.add(None)
            next_loss_at = min(next_loss_at, lost_at)
        only_lost = [pending for id, pending in lost.items() if id not in waiting]
        return AckStatus(list(waiting.values()), only_lost, behind, next_loss_at)

    def note_restart(self, started_at: float) -> None:
        """Makes drains wait for unknown consumers from before the restart, until `lost_after` seconds after it."""
        self._unknown = ("consumers from before the restart", REASON_RESTARTED, started_at + self.lost_after)

    def reset_revisions(self) -> None:
        """Resets all acknowledgements, because revisions start again in a new epoch."""
        for records in self._by_scope.values():
            for record in records.values():
                record.acknowledged, record.unacknowledged_since = 0, None

    @property
    def connected_count(self) -> int:
        """The number of connected consumers."""
        return sum(
            any(self._by_scope[scope][id].connections for scope in scopes) for id, scopes in self._scopes.items()
        )

    def departed_count(self, now: float) -> int:
        """Returns the number of consumers that left without a good-bye and are waited for."""
        return len({record.consumer.id for record in self._departed if now < record.left_at + self.lost_after})

    def lost_count(self, now: float) -> int:
        """Returns the number of lost consumers that are still listed."""
        self._forget_old(now)
        silent = {record.consumer.id for record in self._departed if now >= record.left_at + self.lost_after}
        mute = {id for id in self._scopes if any(self._is_mute(record, now) for record in self._all_records(id))}
        return len(silent | mute)

    def _connect(self, consumer: Consumer, scope: Scope, now: float) -> AckRecord:
        records = self._by_scope.setdefault(scope, {})
        record = records.get(consumer.id)
        if record is None:
            record = records[consumer.id] = AckRecord(consumer, scope, now)
            self._scopes[consumer.id] = (*self._scopes.get(consumer.id, ()), scope)
        elif not record.connections:
            self._remove_departed(record)
            if now >= record.left_at + self.lost_after:
                record.unacknowledged_since = None  # It was disconnected, not mute.
                record.never_acknowledged_since = now if record.never_acknowledged_since is not None else None
        if record.consumer.visible != consumer.visible:
            record.former_visible = record.consumer.visible if record.former_visible.is_empty else ALL_NAMES
        record.consumer = consumer
        record.joined_at = now
        record.connections += 1
        return record

    def _pending(self, record: AckRecord, now: float) -> tuple[float, PendingConsumer]:
        """Returns when the consumer counts as lost, and its entry in the status."""
        if record.unacknowledged_since is None:
            record.unacknowledged_since = now
        mute_at, reason, since = record.unacknowledged_since + MUTE_AFTER, REASON_MUTE, record.unacknowledged_since
        if record.never_acknowledged_since is not None:
            suspect, since = self.is_suspect(record), record.never_acknowledged_since
            mute_at, reason = (
                (since, REASON_SUSPECT_ADDRESS) if suspect else (since + self.lost_after, REASON_NEVER_ACKNOWLEDGED)
            )
            if now >= mute_at:
                self._mutes.add(record.consumer)
        if record.connections:
            mute = now >= mute_at
            return mute_at, PendingConsumer(
                record.consumer, reason if mute else REASON_CONNECTED, since if mute else record.joined_at
            )
        lost_at = min(mute_at, record.left_at + self.lost_after)
        return lost_at, PendingConsumer(
            record.consumer, REASON_LEFT if now < lost_at else REASON_SILENT, record.left_at
        )

    def _is_mute(self, record: AckRecord, now: float) -> bool:
        overdue = record.unacknowledged_since is not None and now >= record.unacknowledged_since + MUTE_AFTER
        never = record.never_acknowledged_since is not None and now >= record.never_acknowledged_since + self.lost_after
        return bool(record.connections) and (overdue or never)

    def _records(self, id: str, service: str) -> Iterator[AckRecord]:
        for scope in (service, None):
            record = self._by_scope.get(scope, {}).get(id)
            if record is not None:
                yield record

    def _all_records(self, id: str) -> Iterator[AckRecord]:
        return (self._by_scope[scope][id] for scope in self._scopes[id])

    def _holds(self, record: AckRecord) -> bool:
        return self._by_scope.get(record.scope, {}).get(record.consumer.id) is record

    def _remove(self, record: AckRecord) -> None:
        id, records = record.consumer.id, self._by_scope[record.scope]
        del records[id]
        if not records:
            del self._by_scope[record.scope]
        scopes = tuple(scope for scope in self._scopes.pop(id) if scope != record.scope)
        if scopes:
            self._scopes[id] = scopes
        if record in self._departed:
            self._remove_departed(record)

    def _remove_departed(self, record: AckRecord) -> None:
        del self._departed[record]
        records = self._departed_by_name[_name_and_address(record)]
        del records[record]
        if not records:
            del self._departed_by_name[_name_and_address(record)]

    def _forget_old(self, now: float) -> None:
        """Forgets what is no longer listed, and what exceeds the bounds."""
        while self._departed:
            record = next(iter(self._departed))
            lost_at = record.left_at + self.lost_after
            if len(self._departed) > MAX_DEPARTED_RECORDS and now < lost_at:
                self._unknown = ("consumers that left", REASON_TOO_MANY_LEFT, max(lost_at, self._unknown[2]))
            elif len(self._departed) <= MAX_DEPARTED_RECORDS and now < lost_at + LOST_LISTED_FOR:
                break
            self._remove(record)
        while self._goodbyes and next(iter(self._goodbyes.values())).until <= now:
            self._forget_goodbye(next(iter(self._goodbyes)))

    def _remember(self, id: str, goodbye: _Goodbye) -> None:
        self._goodbyes[id] = goodbye
        self._goodbye_services += goodbye.service_count

    def _forget_goodbye(self, id: str) -> _Goodbye | None:
        """Removes and returns the good-bye; None if there was none."""
        goodbye = self._goodbyes.pop(id, None)
        self._goodbye_services -= goodbye.service_count if goodbye is not None else 0
        return goodbye

    def _said_goodbye(self, id: str, service: str, now: float) -> bool:
        goodbye = self._goodbyes.get(id)
        return goodbye is not None and now < goodbye.until and (goodbye.services is None or service in goodbye.services)

    def _withdraw_goodbye(self, id: str, services: Collection[str] | None) -> None:
        goodbye = self._forget_goodbye(id)
        if goodbye is not None and goodbye.services is not None and services is not None:
            left = goodbye.services.difference(services)
            if left:
                self._remember(id, goodbye._replace(services=left))


def _name_and_address(record: AckRecord) -> tuple[str, str]:
    return record.consumer.name, record.consumer.address
