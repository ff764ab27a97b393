"""Services and instances as consumers see them, and the events of a watch."""

from __future__ import annotations

from sys import intern

from adsum.core.catalog.changes import Change
from adsum.core.catalog.service_snapshot import ServiceDiff, ServiceSnapshot
from adsum.core.identity import holder_digest
from adsum.core.model import Endpoint, Instance, Listing, Status
from adsum.wire import interning
from adsum.wire.responses import ResponseBody


class InstanceView(ResponseBody, frozen=True):
    """An instance as consumers see it. `cause`, `actor` and `reason` are those of its latest change.

    The actor is who proved to have made the change; `claimed` is the actor that the request named without proof.
    `since` is when it got its status, on the wall clock. `process` is a digest of the holder, "" if there is none. It
    changes when another process takes the id.
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
    claimed: str = ""

    @staticmethod
    def from_listing(listing: Listing) -> InstanceView:
        provenance, process = listing.provenance, holder_digest(listing.registration.holder)
        return _view(
            listing.instance,
            listing.status,
            process,
            round(listing.since, 3),
            provenance.cause,
            provenance.actor,
            provenance.reason,
            provenance.claimed,
        )

    @staticmethod
    def from_endpoint(endpoint: Endpoint) -> InstanceView:
        """Returns the view of an endpoint, without cause, actor, reason and time."""
        return _view(endpoint.instance, endpoint.status, endpoint.holder_digest)

    def to_endpoint(self, service: str) -> Endpoint:
        """Returns the endpoint. Raises `Invalid` for a view that no valid instance has."""
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


def _view(
    instance: Instance,
    status: Status,
    process: str,
    since: float = 0.0,
    cause: str = "",
    actor: str = "",
    reason: str = "",
    claimed: str = "",
) -> InstanceView:
    return InstanceView(
        id=instance.id,
        address=instance.address,
        port=instance.port,
        status=status,
        scheme=instance.scheme,
        zone=instance.zone,
        weight=instance.weight,
        tags=instance.tags,
        metadata=dict(instance.metadata),
        since=since,
        cause=cause,
        actor=actor,
        reason=reason,
        process=process,
        claimed=claimed,
    )


class ServiceView(ResponseBody, frozen=True):
    """A service with its instances. `revision` is that of its last change."""

    epoch: str
    service: str
    revision: int
    instances: list[InstanceView]

    @staticmethod
    def from_snapshot(epoch: str, service: ServiceSnapshot) -> ServiceView:
        views = [InstanceView.from_listing(listing) for listing in service.listings.values()]
        return ServiceView(epoch, service.name, service.revision, views)


class RemovedInstance(ResponseBody, frozen=True):
    """An instance that was removed, with cause, actor and reason. `at` is on the wall clock."""

    id: str
    cause: str
    actor: str
    reason: str = ""
    at: float = 0.0
    claimed: str = ""

    @staticmethod
    def from_change(change: Change) -> RemovedInstance:
        id, provenance = change.key.id, change.provenance
        return RemovedInstance(
            id, provenance.cause, provenance.actor, provenance.reason, round(provenance.at, 3), provenance.claimed
        )


class ServiceChange(ResponseBody, frozen=True):
    """The difference of a service between two revisions: the instances that changed, and those that were removed."""

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

    `full` true: the full state follows, so the client drops what it has. Otherwise the changes since its position
    follow. `watch` is the token with which a cooperating consumer acknowledges revisions. `heartbeat`: an event comes
    at least every so many seconds; after twice as long without one the connection is dead. `joins`: services may join
    and leave this watch while it lives.
    """

    epoch: str
    revision: int
    full: bool
    watch: str
    age: float = 0.0
    heartbeat: float = 0.0
    joins: bool = False


class ServiceJoined(ResponseBody, frozen=True):
    """A service has joined the watch.

    `full` true: its full state follows, so the client drops what it has of it. Otherwise the changes after `since`
    follow, the revision that the client has.
    """

    service: str
    full: bool
    since: int = 0


class WatchSynced(ResponseBody, frozen=True):
    """Ends a group: every change up to `revision` is sent. It is also the heartbeat of a quiet watch."""

    revision: int
    age: float = 0.0
