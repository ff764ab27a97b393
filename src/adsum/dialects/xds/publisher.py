"""The publisher: from every snapshot to what each audience sees, made once; who has to be told is told at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final, NamedTuple

from adsum.core.catalog import snapshots
from adsum.core.catalog.snapshots import ServiceSnapshot, Snapshot
from adsum.core.model import Status
from adsum.dialects.xds.streams.errors import resource_exhausted
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.subscribers import (
    GatewaySubscribers,
    GrpcSubscribers,
    NameBudget,
)
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import CompiledResources

MAX_GATEWAY_PROFILES: Final = 256
"""Different profiles of gateways at a time; past it a gateway with another profile is refused."""
MAX_INLINE_COMPILATION: Final = 100
"""Services or routes that are compiled in the event loop; more are compiled in a thread, and published after that."""
SETTLING_TIME: Final = 30.0
"""Seconds after a start with an empty catalog, or after the begin of another epoch, in which nothing is taken away from
clients: instances register again by themselves, and registrars check about every 10 s."""

_log = logging.getLogger("adsum.xds")

IntentSource = Callable[[Snapshot], Intent]


class _Source(NamedTuple):
    """What a publication is made from."""

    snapshot: Snapshot
    intent: Intent
    addresses: Mapping[str, str]

    def since(self, before: _Source) -> Set[str] | None:
        """The services of which something else may be told than before; None: all."""
        if self.intent is not before.intent or self.addresses is not before.addresses:
            return None
        return snapshots.changed_services(before.snapshot, self.snapshot)


class _Prepared(NamedTuple):
    """A publication that was compiled ahead."""

    source: _Source
    compiled: CompiledResources

    def is_of(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        return self.source.snapshot is snapshot and self.source.addresses is addresses


class Publisher:
    """Keeps every audience at the newest publication."""

    def __init__(self, compiled: CompiledResources, intent: IntentSource) -> None:
        self._compiled = compiled
        self._intent = intent
        self._gateways: dict[GatewayProfile, GatewaySubscribers] = {}
        self._held = NameBudget()
        self._grpc = GrpcSubscribers(self._held)
        self._source = _Source(snapshots.EMPTY_SNAPSHOT, NO_INTENT, {})
        self._settled_at: float | None = None
        self._departed: set[str] = set()
        """Services of which an instance leaves or left while the epoch settles."""
        self.publication = 0
        """Of the last publication; 0: nothing was published yet."""
        self.revision = 0
        """Of the catalog at it."""
        self._troubled = False
        self._prepared: _Prepared | None = None

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody is told; while nobody is, snapshots need not be compiled."""
        return bool(self._gateways or self._grpc.session_count)

    @property
    def epoch(self) -> str:
        """Of the catalog at the last publication; "" before the first."""
        return self._source.snapshot.epoch

    def is_behind(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        """Whether this is another than what was published last, or somebody sees nothing yet."""
        source = self._source
        return snapshot is not source.snapshot or addresses is not source.addresses or bool(self._unseen())

    def is_expensive(self, snapshot: Snapshot) -> bool:
        """Whether to compile it takes so long that it should be prepared first."""
        before = self._source.snapshot
        documents = before.documents, snapshot.documents
        if documents[0] is not documents[1] and any(len(each.by_key) > MAX_INLINE_COMPILATION for each in documents):
            return True
        if len(snapshots.changed_services(before, snapshot)) > MAX_INLINE_COMPILATION:
            return True
        return len(snapshot.services) > MAX_INLINE_COMPILATION and not all(
            map(self._compiled.is_compiled, self._unseen())
        )

    @property
    def can_defer(self) -> bool:
        """Whether who joined last sees nothing yet, or what others were told up to now, which is not long outdated."""
        return bool(self._unseen()) or sum(each.session_count for each in self._audiences()) > 1

    def _unseen(self) -> list[GatewayProfile]:
        """Shapes of gateways that see nothing yet, though something was published."""
        return [shape for shape, each in self._gateways.items() if self.publication and not each.publication]

    def prepare(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> None:
        """Compile this snapshot ahead, so that `publish` has little to do. It may be called in another thread.

        Nothing else may be prepared or published meanwhile. If it fails, `publish` meets the same again, and says so.
        """
        self._prepared = None
        try:
            prepared = self._compile(snapshot, addresses)
            for shape in list(self._gateways):
                prepared.compiled.gateway_resources(shape)
        except Exception:
            return
        self._prepared = prepared

    def _compile(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> _Prepared:
        source = _Source(snapshot, self._intent(snapshot), addresses)
        return _Prepared(source, self._compiled.advance(*source))

    def gateway_subscribers(self, profile: GatewayProfile) -> GatewaySubscribers:
        """The audience of gateways of this shape, with one more in it. Raises `Refused` at `MAX_GATEWAY_PROFILES`.

        A new one sees nothing before the next publication.
        """
        audience = self._gateways.get(profile)
        if audience is None:
            if len(self._gateways) >= MAX_GATEWAY_PROFILES:
                raise resource_exhausted(f"there are gateways of {MAX_GATEWAY_PROFILES} different shapes already")
            audience = GatewaySubscribers(self._held)
            self._gateways[profile] = audience
            audience.is_settling, audience.departed_services = self._settled_at is not None, self._departed
        audience.session_count += 1
        return audience

    def grpc_subscribers(self) -> GrpcSubscribers:
        """The audience of gRPC clients, with one more in it."""
        self._grpc.session_count += 1
        return self._grpc

    def has_grpc_subscriber(self, service: str) -> bool:
        """Whether a gRPC client asks for that service."""
        return self._grpc.has_subscriber(service)

    def leave(self, subscribers: GatewaySubscribers | GrpcSubscribers) -> None:
        """One of it left."""
        subscribers.session_count -= 1
        if not subscribers.session_count:
            for shape in [shape for shape, each in self._gateways.items() if each is subscribers]:
                del self._gateways[shape]

    def publish(self, snapshot: Snapshot, addresses: Mapping[str, str], now: float) -> set[StreamSession] | None:
        """Have every audience see this snapshot; whom to tell.

        None stands for all: nothing was to be seen before, or something that was withheld from some is to be told.

        If it can't be compiled, everybody goes on with what was seen last, and the log says why.
        """
        number, revision = self.publication + 1, snapshot.revision
        try:
            known, self._prepared = self._prepared, None
            if known is None or not known.is_of(snapshot, addresses):
                known = self._compile(snapshot, addresses)
            source, compiled = known
            seen = [(audience, compiled.gateway_resources(shape)) for shape, audience in self._gateways.items()]
            told = self._grpc.publish(compiled, source.since(self._source), number, revision)
        except Exception:
            if not self._troubled:
                _log.exception("revision %d can't be told to gateways; they keep what they have", revision)
            self._troubled = True
            return self._show_last()
        begins = not snapshot.instance_count if not self.publication else snapshot.epoch != self.epoch
        touched = source.since(self._source)
        self._compiled, self._source = compiled, source
        for audience, resources in seen:
            told |= audience.publish(resources, number, revision, compiled.unrouted, compiled.changed_names)
        first, self.publication, self.revision, self._troubled = not self.publication, number, revision, False
        if begins:
            self._settle(now + SETTLING_TIME)
        released = self._settled_at is not None and self._note_departures(snapshot, touched)
        return None if first or released else told

    def _show_last(self) -> set[StreamSession]:
        """Have those that see nothing yet see what the others go on with."""
        told: set[StreamSession] = set()
        for shape in self._unseen():
            resources = self._compiled.gateway_resources(shape)
            told |= self._gateways[shape].publish(resources, self.publication, self.revision, self._compiled.unrouted)
        return told

    def _note_departures(self, snapshot: Snapshot, touched: Set[str] | None) -> bool:
        """Whether there is a service more of which an instance leaves: what was withheld of it can be told."""
        before = len(self._departed)
        changed = snapshot.services if touched is None else touched
        self._departed.update(name for name in changed if _departs(snapshot.service(name)))
        return len(self._departed) > before

    def end_settling(self, now: float) -> bool:
        """Whether the settling time has ended since the last call: what was withheld can be told."""
        if self._settled_at is None or now < self._settled_at:
            return False
        self._settle(None)
        return True

    def _settle(self, at: float | None) -> None:
        self._settled_at, self._departed = at, set()
        for audience in self._audiences():
            audience.is_settling, audience.departed_services = at is not None, self._departed

    def _audiences(self) -> Iterable[GatewaySubscribers | GrpcSubscribers]:
        return (*self._gateways.values(), self._grpc)


def _departs(service: ServiceSnapshot) -> bool:
    """Whether an instance is about to leave, or left as far as is remembered."""
    leaving = (Status.DRAINING, Status.MAINTENANCE)
    departing = any(each.status in leaving for each in service.listings.values())
    return departing or not all(step.listed for step in service.recent_changes)
