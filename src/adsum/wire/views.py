"""A service and its instances as consumers see them, whole and by what changed."""

from __future__ import annotations

from sys import intern

from adsum.core.catalog.changes import Change
from adsum.core.catalog.service_snapshot import ServiceDiff, ServiceSnapshot
from adsum.core.identity import holder_digest
from adsum.core.model import Endpoint, Instance, Listing, Status
from adsum.wire import interning
from adsum.wire.responses import ResponseBody


class InstanceView(ResponseBody, frozen=True):
    """An instance as consumers see it, and why it stands as it does.

    `process` changes when another process takes the id: a digest of the holder, left out if there is none.
    """

    id: str
    address: str
    port: int
    status: Status
    scheme: str = "http"
    zone: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    since: float = 0.0
    cause: str = ""
    actor: str = ""
    reason: str = ""
    process: str = ""

    @staticmethod
    def from_listing(listing: Listing) -> InstanceView:
        instance, why = listing.instance, listing.provenance
        return InstanceView(
            id=instance.id,
            address=instance.address,
            port=instance.port,
            status=listing.status,
            scheme=instance.scheme,
            zone=instance.zone,
            weight=instance.weight,
            tags=instance.tags,
            metadata=dict(instance.metadata),
            since=round(listing.since, 3),
            cause=why.cause,
            actor=why.actor,
            reason=why.reason,
            process=holder_digest(listing.registration.holder),
        )

    def to_endpoint(self, service: str) -> Endpoint:
        """The endpoint for a consumer. Raises `Invalid` if the other end speaks nonsense."""
        instance = Instance(
            service=service,
            id=self.id,
            address=self.address,
            port=self.port,
            scheme=intern(self.scheme),
            zone=intern(self.zone),
            weight=self.weight,
            tags=interning.intern_texts(self.tags),
            metadata=interning.intern_pairs(self.metadata),
        )
        return Endpoint(instance, self.status, self.process)


class ServiceView(ResponseBody, frozen=True):
    """A service at the revision of its last change."""

    epoch: str
    service: str
    revision: int
    instances: list[InstanceView]

    @staticmethod
    def from_snapshot(epoch: str, service: ServiceSnapshot) -> ServiceView:
        views = [InstanceView.from_listing(listing) for listing in service.listings.values()]
        return ServiceView(epoch, service.name, service.revision, views)


class RemovedInstance(ResponseBody, frozen=True):
    """An instance that left, and why."""

    id: str
    cause: str
    actor: str
    reason: str = ""
    at: float = 0.0

    @staticmethod
    def from_change(change: Change) -> RemovedInstance:
        why = change.provenance
        return RemovedInstance(change.key.id, why.cause, why.actor, why.reason, round(why.at, 3))


class ServiceChange(ResponseBody, frozen=True):
    """What turns a service as it was at `since` into what it is at `revision`."""

    service: str
    since: int
    revision: int
    changed: list[InstanceView] = []
    removed: list[RemovedInstance] = []

    @staticmethod
    def from_diff(diff: ServiceDiff) -> ServiceChange:
        return ServiceChange(
            diff.service,
            diff.since,
            diff.revision,
            [InstanceView.from_listing(listing) for listing in diff.changed],
            [RemovedInstance.from_change(change) for change in diff.removed],
        )


class WatchOpened(ResponseBody, frozen=True):
    """The first event of a watch.

    `whole`: forget everything, the full state follows; otherwise only what changed since the revision asked for.
    `watch` is the token under which a cooperating consumer says what it has applied. `heartbeat`: something comes at
    least every so many seconds; after twice as long without a word the connection is dead.
    """

    epoch: str
    revision: int
    full: bool
    watch: str
    age: float = 0.0
    heartbeat: float = 0.0


class WatchSynced(ResponseBody, frozen=True):
    """All that is to be said up to `revision` has been said; also the heartbeat of a quiet watch."""

    revision: int
    age: float = 0.0
