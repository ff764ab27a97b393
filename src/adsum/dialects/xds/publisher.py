"""The publisher: from every snapshot to what each audience sees, made once; who has to be told is told at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple, Protocol

from adsum.core.catalog import snapshots
from adsum.core.catalog.snapshots import ServiceSnapshot, Snapshot
from adsum.core.model import Status
from adsum.dialects.xds.bounds import MAX_SHAPES, MUCH, SETTLING
from adsum.dialects.xds.streams.session import Session
from adsum.dialects.xds.subscribers import Gateways, GrpcClients, Held, Resources, Table
from adsum.dialects.xds.telemetry.refusals import exhausted
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.profile import Shape
from adsum.gateway.resources.resources import Kind, Resource

_log = logging.getLogger("adsum.xds")

IntentOf = Callable[[Snapshot], Intent]


class Compiled(Protocol):
    """What `adsum.gateway.resources.compiled_resources.Compiled` promises."""

    @property
    def vacated(self) -> Set[str]:
        """Assignments in which nobody takes requests, of those that share a route's requests with others."""
        ...

    def knows(self, shape: Shape) -> bool:
        """Whether all resources of such a gateway are made already."""
        ...

    def moved(self, before: Table, after: Table) -> Set[str] | None:
        """The names of which two tables may differ; None: of all."""
        ...

    def envoy(self, shape: Shape) -> Resources:
        """All resources of a gateway."""
        ...

    def grpc(self, kind: Kind, name: str) -> Resource | None:
        """One resource of a gRPC client."""
        ...

    def follow(self, snapshot: Snapshot, intent: Intent, addresses: Mapping[str, str]) -> Any:
        """The same of a later snapshot."""
        ...


class _Source(NamedTuple):
    """What a publication is made from."""

    snapshot: Snapshot
    intent: Intent
    addresses: Mapping[str, str]

    def since(self, before: _Source) -> Set[str] | None:
        """The services of which something else may be told than before; None: all."""
        if self.intent is not before.intent or self.addresses is not before.addresses:
            return None
        return snapshots.changed(before.snapshot, self.snapshot)


class _Prepared(NamedTuple):
    """A publication that was compiled ahead."""

    source: _Source
    compiled: Compiled

    def is_of(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        return self.source.snapshot is snapshot and self.source.addresses is addresses


class Publisher:
    """Keeps every audience at the newest publication."""

    def __init__(self, compiled: Compiled, intent: IntentOf) -> None:
        self._compiled = compiled
        self._intent = intent
        self._gateways: dict[Shape, Gateways] = {}
        self._held = Held()
        self._grpc = GrpcClients(self._held)
        self._source = _Source(snapshots.EMPTY, NO_INTENT, {})
        self._settled_at: float | None = None
        self._departed: set[str] = set()
        """Services of which an instance leaves or left while the epoch settles."""
        self.number = 0
        """Of the last publication; 0: nothing was published yet."""
        self.revision = 0
        """Of the catalog at it."""
        self._troubled = False
        self._prepared: _Prepared | None = None

    @property
    def attended(self) -> bool:
        """Whether anybody is told; while nobody is, snapshots need not be compiled."""
        return bool(self._gateways or self._grpc.sessions)

    @property
    def epoch(self) -> str:
        """Of the catalog at the last publication; "" before the first."""
        return self._source.snapshot.epoch

    def behind(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        """Whether this is another than what was published last, or somebody sees nothing yet."""
        source = self._source
        return snapshot is not source.snapshot or addresses is not source.addresses or bool(self._unseen())

    def is_much(self, snapshot: Snapshot) -> bool:
        """Whether to compile it takes so long that it should be prepared first."""
        before = self._source.snapshot
        documents = before.documents, snapshot.documents
        if documents[0] is not documents[1] and any(len(each.of) > MUCH for each in documents):
            return True
        if len(snapshots.changed(before, snapshot)) > MUCH:
            return True
        return len(snapshot.services) > MUCH and not all(map(self._compiled.knows, self._unseen()))

    @property
    def may_wait(self) -> bool:
        """Whether who joined last sees nothing yet, or what others were told up to now, which is not long outdated."""
        return bool(self._unseen()) or sum(each.sessions for each in self._audiences()) > 1

    def _unseen(self) -> list[Shape]:
        """Shapes of gateways that see nothing yet, though something was published."""
        return [shape for shape, each in self._gateways.items() if self.number and not each.number]

    def prepare(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> None:
        """Compile this snapshot ahead, so that `publish` has little to do. It may be called in another thread.

        Nothing else may be prepared or published meanwhile. If it fails, `publish` meets the same again, and says so.
        """
        self._prepared = None
        try:
            prepared = self._compile(snapshot, addresses)
            for shape in list(self._gateways):
                prepared.compiled.envoy(shape)
        except Exception:
            return
        self._prepared = prepared

    def _compile(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> _Prepared:
        source = _Source(snapshot, self._intent(snapshot), addresses)
        return _Prepared(source, self._compiled.follow(*source))

    def gateways(self, shape: Shape) -> Gateways:
        """The audience of gateways of this shape, with one more in it. Raises `Refused` at `MAX_SHAPES`.

        A new one sees nothing before the next publication.
        """
        audience = self._gateways.get(shape)
        if audience is None:
            if len(self._gateways) >= MAX_SHAPES:
                raise exhausted(f"there are gateways of {MAX_SHAPES} different shapes already")
            audience = Gateways(self._held)
            self._gateways[shape] = audience
            audience.settling, audience.departed = self._settled_at is not None, self._departed
        audience.sessions += 1
        return audience

    def grpc_clients(self) -> GrpcClients:
        """The audience of gRPC clients, with one more in it."""
        self._grpc.sessions += 1
        return self._grpc

    def names(self, service: str) -> bool:
        """Whether a gRPC client asks for that service."""
        return self._grpc.names_service(service)

    def leave(self, audience: Gateways | GrpcClients) -> None:
        """One of it left."""
        audience.sessions -= 1
        if not audience.sessions:
            for shape in [shape for shape, each in self._gateways.items() if each is audience]:
                del self._gateways[shape]

    def publish(self, snapshot: Snapshot, addresses: Mapping[str, str], now: float) -> set[Session] | None:
        """Have every audience see this snapshot; whom to tell.

        None stands for all: nothing was to be seen before, or something that was withheld from some is to be told.

        If it can't be compiled, everybody goes on with what was seen last, and the log says why.
        """
        number, revision = self.number + 1, snapshot.revision
        try:
            known, self._prepared = self._prepared, None
            if known is None or not known.is_of(snapshot, addresses):
                known = self._compile(snapshot, addresses)
            source, compiled = known
            seen = [(audience, compiled.envoy(shape)) for shape, audience in self._gateways.items()]
            told = self._grpc.move(compiled, source.since(self._source), number, revision)
        except Exception:
            if not self._troubled:
                _log.exception("revision %d can't be told to gateways; they keep what they have", revision)
            self._troubled = True
            return self._show_last()
        begins = not snapshot.count if not self.number else snapshot.epoch != self.epoch
        touched = source.since(self._source)
        self._compiled, self._source = compiled, source
        for audience, resources in seen:
            told |= audience.move(resources, number, revision, compiled.vacated, compiled.moved)
        first, self.number, self.revision, self._troubled = not self.number, number, revision, False
        if begins:
            self._settle(now + SETTLING)
        released = self._settled_at is not None and self._note_departures(snapshot, touched)
        return None if first or released else told

    def _show_last(self) -> set[Session]:
        """Have those that see nothing yet see what the others go on with."""
        told: set[Session] = set()
        for shape in self._unseen():
            resources = self._compiled.envoy(shape)
            told |= self._gateways[shape].move(resources, self.number, self.revision, self._compiled.vacated)
        return told

    def _note_departures(self, snapshot: Snapshot, touched: Set[str] | None) -> bool:
        """Whether there is a service more of which an instance leaves: what was withheld of it can be told."""
        before = len(self._departed)
        changed = snapshot.services if touched is None else touched
        self._departed.update(name for name in changed if _departs(snapshot.service(name)))
        return len(self._departed) > before

    def settle(self, now: float) -> bool:
        """Whether the settling time has ended since the last call: what was withheld can be told."""
        if self._settled_at is None or now < self._settled_at:
            return False
        self._settle(None)
        return True

    def _settle(self, at: float | None) -> None:
        self._settled_at, self._departed = at, set()
        for audience in self._audiences():
            audience.settling, audience.departed = at is not None, self._departed

    def _audiences(self) -> Iterable[Gateways | GrpcClients]:
        return (*self._gateways.values(), self._grpc)


def _departs(service: ServiceSnapshot) -> bool:
    """Whether an instance is about to leave, or left as far as is remembered."""
    leaving = (Status.DRAINING, Status.MAINTENANCE)
    departing = any(each.status in leaving for each in service.listings.values())
    return departing or not all(step.listed for step in service.trail)
