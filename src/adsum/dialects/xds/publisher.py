"""The publisher: compiles each snapshot once, and gives the resources to every group of subscribers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final, NamedTuple

from adsum.core.catalog import snapshots
from adsum.core.catalog.documents import INTENT_KINDS, intent_changed
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Status
from adsum.dialects.xds.streams.errors import resource_exhausted
from adsum.dialects.xds.subscribers import (
    GatewaySubscribers,
    GrpcSubscribers,
    NameBudget,
    Subscriber,
    Subscribers,
)
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import CompiledResources

MAX_GATEWAY_PROFILES: Final = 256
"""Different profiles of gateways at a time; past it a gateway with another profile is refused."""
MAX_INLINE_COMPILATION: Final = 100
"""Services or routes that are compiled in the event loop; more are compiled in a thread, and published after that."""
SETTLING_TIME: Final = 30.0
"""Seconds after a start with an empty catalog, or after the beginning of another epoch, in which nothing is removed
from clients: instances register again by themselves, and registrars check about every 10 s."""

_log = logging.getLogger("adsum.xds")

IntentSource = Callable[[Snapshot], Intent]
"""Returns the routes and upstreams of a snapshot; the same object until they change."""


class _Source(NamedTuple):
    """The source of a publication."""

    snapshot: Snapshot
    intent: Intent
    addresses: Mapping[str, str]

    def changed_services(self, before: _Source) -> Set[str] | None:
        """Returns the services whose resources may differ from those before; None: all."""
        if self.intent is not before.intent or self.addresses is not before.addresses:
            return None
        return snapshots.changed_services(before.snapshot, self.snapshot)


class _Prepared(NamedTuple):
    """A publication that was compiled ahead."""

    source: _Source
    compiled: CompiledResources

    def matches(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        return self.source.snapshot is snapshot and self.source.addresses is addresses


class Publisher:
    """Keeps every group of subscribers at the latest publication."""

    def __init__(self, compiled: CompiledResources, intent: IntentSource) -> None:
        """`compiled` is what clients get before the first snapshot."""
        self._compiled = compiled
        self._intent = intent
        self._gateways: dict[GatewayProfile, GatewaySubscribers] = {}
        self._budget = NameBudget()
        self._grpc = GrpcSubscribers(self._budget)
        self._source = _Source(snapshots.EMPTY_SNAPSHOT, NO_INTENT, {})
        self._settled_at: float | None = None
        """The monotonic time at which the settling time ends; None if the epoch has settled."""
        self._departed_services: set[str] = set()
        """Services of which an instance leaves or has left while the epoch settles."""
        self.publication = 0
        """The number of the latest publication; 0 before the first."""
        self.revision = 0
        """The revision of the catalog at that publication."""
        self._is_failing = False
        self._prepared: _Prepared | None = None

    @property
    def has_subscribers(self) -> bool:
        """True if a client is connected; without one, snapshots need not be compiled."""
        return bool(self._gateways or self._grpc.session_count)

    @property
    def epoch(self) -> str:
        """The epoch of the catalog at the latest publication; "" before the first."""
        return self._source.snapshot.epoch

    def is_behind(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        """Returns whether this is not what was published last, or a group of gateways has nothing yet."""
        source = self._source
        return snapshot is not source.snapshot or addresses is not source.addresses or bool(self._new_profiles())

    def is_expensive(self, snapshot: Snapshot) -> bool:
        """Returns whether compiling this takes so long that it should be prepared in a thread."""
        before = self._source.snapshot
        documents = before.documents, snapshot.documents
        if intent_changed(*documents) and any(
            len(table.by_kind[kind]) > MAX_INLINE_COMPILATION for table in documents for kind in INTENT_KINDS
        ):
            return True
        if len(snapshots.changed_services(before, snapshot)) > MAX_INLINE_COMPILATION:
            return True
        if len(snapshot.services) <= MAX_INLINE_COMPILATION:
            return False
        return not all(map(self._compiled.is_compiled, self._new_profiles()))

    @property
    def can_defer(self) -> bool:
        """True if a client that has just joined can wait: it has nothing yet, or the recent resources of the others."""
        return bool(self._new_profiles()) or sum(group.session_count for group in self._groups()) > 1

    def _new_profiles(self) -> list[GatewayProfile]:
        """Returns the profiles whose gateways have nothing yet, although something was published."""
        return [profile for profile, group in self._gateways.items() if self.publication and not group.publication]

    def prepare(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> None:
        """Compiles this snapshot ahead, so that `publish` is fast. It may be called in another thread.

        Nothing else may be prepared or published meanwhile. If it fails, `publish` fails in the same way and logs it.
        """
        self._prepared = None
        try:
            prepared = self._compile(snapshot, addresses)
            for profile in list(self._gateways):
                prepared.compiled.gateway_resources(profile)
        except Exception:
            return
        self._prepared = prepared

    def _compile(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> _Prepared:
        source = _Source(snapshot, self._intent(snapshot), addresses)
        return _Prepared(source, self._compiled.advance(*source))

    def gateway_subscribers(self, profile: GatewayProfile) -> GatewaySubscribers:
        """Counts one more gateway with this profile, and returns their group.

        A new group gets its resources at the next publication. Raises `StreamRefused` at `MAX_GATEWAY_PROFILES`.
        """
        group = self._gateways.get(profile)
        if group is None:
            if len(self._gateways) >= MAX_GATEWAY_PROFILES:
                raise resource_exhausted(f"there are gateways with {MAX_GATEWAY_PROFILES} different profiles already")
            group = GatewaySubscribers(self._budget)
            self._gateways[profile] = group
            group.is_settling, group.departed_services = self._settled_at is not None, self._departed_services
        group.session_count += 1
        return group

    def grpc_subscribers(self) -> GrpcSubscribers:
        """Counts one more gRPC client, and returns their group."""
        self._grpc.session_count += 1
        return self._grpc

    def has_grpc_subscriber(self, service: str) -> bool:
        """Returns whether a gRPC client subscribes to that service."""
        return self._grpc.has_subscriber(service)

    def leave(self, subscribers: Subscribers) -> None:
        """Removes one client from the count of its group. A group of gateways without any client is dropped."""
        subscribers.session_count -= 1
        if not subscribers.session_count:
            for profile in [profile for profile, group in self._gateways.items() if group is subscribers]:
                del self._gateways[profile]

    def publish(self, snapshot: Snapshot, addresses: Mapping[str, str], now: float) -> set[Subscriber] | None:
        """Gives every group the resources of this snapshot, and returns the sessions that must get something.

        None stands for all sessions: this is the first publication, or something that was withheld may be sent. If the
        snapshot can't be compiled, all clients keep what was published last, and the reason is logged.
        """
        publication, revision = self.publication + 1, snapshot.revision
        try:
            prepared, self._prepared = self._prepared, None
            if prepared is None or not prepared.matches(snapshot, addresses):
                prepared = self._compile(snapshot, addresses)
            source, compiled = prepared
            tables = [(group, compiled.gateway_resources(profile)) for profile, group in self._gateways.items()]
            changed_services = source.changed_services(self._source)
            notified = self._grpc.publish(compiled, changed_services, publication, revision)
        except Exception:
            if not self._is_failing:
                _log.exception("revision %d can't be compiled for gateways; they keep what they have", revision)
            self._is_failing = True
            return self._publish_last_to_new_profiles()
        begins = not snapshot.instance_count if not self.publication else snapshot.epoch != self.epoch
        self._compiled, self._source = compiled, source
        for group, resources in tables:
            notified |= group.publish(resources, publication, revision, compiled.unrouted, compiled.changed_names)
        is_first, self.publication, self.revision, self._is_failing = not self.publication, publication, revision, False
        if begins:
            self._settle(now + SETTLING_TIME)
        is_released = self._settled_at is not None and self._record_departures(snapshot, changed_services)
        return None if is_first or is_released else notified

    def _publish_last_to_new_profiles(self) -> set[Subscriber]:
        """Publishes the last resources to the groups that have none yet. Returns the sessions to push to."""
        notified: set[Subscriber] = set()
        for profile in self._new_profiles():
            resources = self._compiled.gateway_resources(profile)
            group = self._gateways[profile]
            notified |= group.publish(resources, self.publication, self.revision, self._compiled.unrouted)
        return notified

    def _record_departures(self, snapshot: Snapshot, changed_services: Set[str] | None) -> bool:
        """Records the services of which an instance leaves.

        Returns whether there is a new one: its withheld assignments may be sent.
        """
        before = len(self._departed_services)
        names = snapshot.services if changed_services is None else changed_services
        self._departed_services.update(name for name in names if _has_departures(snapshot.service(name)))
        return len(self._departed_services) > before

    def end_settling(self, now: float) -> bool:
        """Ends the settling time if it is over. Returns True if so: withheld resources may be sent."""
        if self._settled_at is None or now < self._settled_at:
            return False
        self._settle(None)
        return True

    def _settle(self, at: float | None) -> None:
        self._settled_at, self._departed_services = at, set()
        for group in self._groups():
            group.is_settling, group.departed_services = at is not None, self._departed_services

    def _groups(self) -> Iterable[Subscribers]:
        return (*self._gateways.values(), self._grpc)


def _has_departures(service: ServiceSnapshot) -> bool:
    """Returns whether an instance is about to leave, or has left as far as recent changes show."""
    leaving = (Status.DRAINING, Status.MAINTENANCE)
    is_leaving = any(listing.status in leaving for listing in service.listings.values())
    return is_leaving or not all(step.listed for step in service.recent_changes)
