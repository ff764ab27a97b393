"""The publisher: from every snapshot to what each audience sees, made once; who has to be told is told at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple, Protocol

from adsum.core import catalog
from adsum.core.catalog import Snapshot
from adsum.dialects.xds.audience import Gateways, GrpcClients, Resources
from adsum.dialects.xds.bounds import MAX_SHAPES, SETTLING
from adsum.dialects.xds.refusals import exhausted
from adsum.dialects.xds.session import Session
from adsum.gateway import differences
from adsum.gateway.intent import NO_INTENT, Intent
from adsum.gateway.resources import Kind, Resource
from adsum.gateway.shape import Shape

_log = logging.getLogger("adsum.xds")

IntentOf = Callable[[Snapshot], Intent]


class Compiled(Protocol):
    """What `adsum.gateway.compiled.Compiled` promises."""

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
        return differences.between(before.snapshot, self.snapshot)


class Publisher:
    """Keeps every audience at the newest publication."""

    def __init__(self, compiled: Compiled, intent: IntentOf) -> None:
        self._compiled = compiled
        self._intent = intent
        self._gateways: dict[Shape, Gateways] = {}
        self._grpc = GrpcClients()
        self._source = _Source(catalog.EMPTY, NO_INTENT, {})
        self._settled_at: float | None = None
        self.number = 0
        """Of the last publication; 0: nothing was published yet."""
        self.revision = 0
        """Of the catalog at it."""
        self._troubled = False

    @property
    def attended(self) -> bool:
        """Whether anybody is told; while nobody is, snapshots need not be compiled."""
        return bool(self._gateways or self._grpc.sessions)

    def behind(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        """Whether this is another than what was published last."""
        return snapshot is not self._source.snapshot or addresses is not self._source.addresses

    def gateways(self, shape: Shape) -> Gateways:
        """The audience of gateways of this shape, with one more in it. Raises `Refused` at `MAX_SHAPES`."""
        audience = self._gateways.get(shape)
        if audience is None:
            if len(self._gateways) >= MAX_SHAPES:
                raise exhausted(f"there are gateways of {MAX_SHAPES} different shapes already")
            audience = Gateways()
            if self.number:
                audience.move(self._compiled.envoy(shape), self.number, self.revision)
            self._gateways[shape] = audience
            audience.settling = self._settled_at is not None
        audience.sessions += 1
        return audience

    def grpc_clients(self) -> GrpcClients:
        """The audience of gRPC clients, with one more in it."""
        self._grpc.sessions += 1
        return self._grpc

    def leave(self, audience: Gateways | GrpcClients) -> None:
        """One of it left."""
        audience.sessions -= 1
        if not audience.sessions:
            for shape in [shape for shape, each in self._gateways.items() if each is audience]:
                del self._gateways[shape]

    def publish(self, snapshot: Snapshot, addresses: Mapping[str, str], now: float) -> set[Session] | None:
        """Have every audience see this snapshot; whom to tell. None stands for all: nothing was to be seen before.

        If it can't be compiled, everybody goes on with what was seen last, and the log says why.
        """
        number, revision = self.number + 1, snapshot.revision
        try:
            source = _Source(snapshot, self._intent(snapshot), addresses)
            compiled: Compiled = self._compiled.follow(*source)
            seen = [(audience, compiled.envoy(shape)) for shape, audience in self._gateways.items()]
            told = self._grpc.move(compiled, source.since(self._source), number, revision)
        except Exception:
            if not self._troubled:
                _log.exception("revision %d can't be told to gateways; they keep what they have", revision)
            self._troubled = True
            return set()
        self._compiled, self._source = compiled, source
        for audience, resources in seen:
            told |= audience.move(resources, number, revision)
        first, self.number, self.revision, self._troubled = not self.number, number, revision, False
        if first:
            self._settle(now + SETTLING if not snapshot.count else None)
        return None if first else told

    def settle(self, now: float) -> bool:
        """Whether the settling time has ended since the last call: what was withheld can be told."""
        if self._settled_at is None or now < self._settled_at:
            return False
        self._settle(None)
        return True

    def _settle(self, at: float | None) -> None:
        self._settled_at = at
        for audience in self._audiences():
            audience.settling = at is not None

    def _audiences(self) -> Iterable[Gateways | GrpcClients]:
        return (*self._gateways.values(), self._grpc)
