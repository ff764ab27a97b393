"""The publisher: compiles each snapshot once, and gives the resources to every group of subscribers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Final, NamedTuple

from adsum.core.access.scopes import ALL_NAMES, NamePatterns
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
from adsum.gateway.resources.visible_resources import VisibleResources

MAX_GATEWAY_GROUPS: Final = 256
"""Groups of gateways at a time: different profiles, or the same one with other visible services. Past it a gateway of
another group is refused."""
MAX_GATEWAY_SETS: Final = 64
"""Different sets of visible services of gateways at a time, beside the set of all services. Past it a gateway with
another set is refused, because each set is compiled apart."""
MAX_GRPC_SETS: Final = 1_024
"""Different sets of visible services of gRPC clients at a time. Past it a client with another set is refused. A set
costs little: what it includes is compiled once for all sets."""
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


class _GatewayGroup(NamedTuple):
    """What the gateways of a group have in common."""

    visible: NamePatterns
    profile: GatewayProfile


_Parts = Mapping[NamePatterns, VisibleResources]
"""The resources of the sets of visible services that some gateways are limited to."""


class _Prepared(NamedTuple):
    """A publication that was compiled ahead."""

    source: _Source
    compiled: CompiledResources
    parts: _Parts

    def find(self, visible: NamePatterns) -> CompiledResources | None:
        """Returns the resources of gateways with these visible services; None if they are not compiled."""
        return _find(self.compiled, self.parts, visible)

    def matches(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        return self.source.snapshot is snapshot and self.source.addresses is addresses


class Publisher:
    """Keeps every group of subscribers at the latest publication."""

    def __init__(self, compiled: CompiledResources, intent: IntentSource) -> None:
        """`compiled` is what clients get before the first snapshot."""
        self._initial = self._compiled = compiled
        self._intent = intent
        self._gateways: dict[_GatewayGroup, GatewaySubscribers] = {}
        self._parts: _Parts = {}
        self._budget = NameBudget()
        self._grpc: dict[NamePatterns, GrpcSubscribers] = {}
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
        return bool(self._gateways or self._grpc)

    @property
    def epoch(self) -> str:
        """The epoch of the catalog at the latest publication; "" before the first."""
        return self._source.snapshot.epoch

    def is_behind(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> bool:
        """Returns whether this is not what was published last, or a group of gateways has nothing yet."""
        source = self._source
        return snapshot is not source.snapshot or addresses is not source.addresses or self.has_new_groups

    @property
    def has_new_groups(self) -> bool:
        """True if a group of gateways has nothing yet, although something was published."""
        return bool(self._new_groups())

    def is_expensive(self, snapshot: Snapshot) -> bool:
        """Returns whether compiling this takes so long that it should be prepared in a thread."""
        before, sets = self._source.snapshot, self._sets()
        documents = before.documents, snapshot.documents
        if intent_changed(*documents) and any(
            len(table.by_kind[kind]) * (1 + len(sets)) > MAX_INLINE_COMPILATION
            for table in documents
            for kind in INTENT_KINDS
        ):
            return True
        changed = snapshots.changed_services(before, snapshot)
        if len(changed) > MAX_INLINE_COMPILATION or _count_visible(changed, sets) > MAX_INLINE_COMPILATION:
            return True
        return len(snapshot.services) > MAX_INLINE_COMPILATION and not all(map(self._is_compiled, self._new_groups()))

    @property
    def can_defer(self) -> bool:
        """True if a client that has just joined can wait: it has nothing yet, or the recent resources of the others."""
        return self.has_new_groups or sum(group.session_count for group in self._groups()) > 1

    def _new_groups(self) -> list[_GatewayGroup]:
        """Returns the groups of gateways that have nothing yet, although something was published."""
        return [key for key, group in self._gateways.items() if self.publication and not group.publication]

    def _is_compiled(self, key: _GatewayGroup) -> bool:
        compiled = _find(self._compiled, self._parts, key.visible)
        return compiled is not None and compiled.is_compiled(key.profile)

    def _sets(self) -> Collection[NamePatterns]:
        """Returns the sets of visible services that some gateways are limited to."""
        return {key.visible for key in list(self._gateways) if not key.visible.is_all}

    def prepare(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> None:
        """Compiles this snapshot ahead, so that `publish` is fast. It may be called in another thread.

        Nothing else may be prepared or published meanwhile. If it fails, `publish` fails in the same way and logs it.
        """
        self._prepared = None
        try:
            prepared = self._compile(snapshot, addresses)
            for key in list(self._gateways):
                compiled = prepared.find(key.visible)
                if compiled is not None:
                    compiled.gateway_resources(key.profile)
        except Exception:
            return
        self._prepared = prepared

    def _compile(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> _Prepared:
        source = _Source(snapshot, self._intent(snapshot), addresses)
        parts = {visible: self._part(visible).advance(*source) for visible in self._sets()}
        return _Prepared(source, self._compiled.advance(*source), parts)

    def _part(self, visible: NamePatterns) -> VisibleResources:
        """Returns the resources of a set of visible services that were published last."""
        return self._parts.get(visible) or VisibleResources.create(visible, self._initial)

    def gateway_subscribers(self, profile: GatewayProfile, visible: NamePatterns = ALL_NAMES) -> GatewaySubscribers:
        """Counts one more gateway with this profile and these visible services, and returns their group.

        A new group gets its resources at the next publication. Raises `StreamRefused` at `MAX_GATEWAY_GROUPS` and
        `MAX_GATEWAY_SETS`.
        """
        key = _GatewayGroup(visible, profile)
        group = self._gateways.get(key)
        if group is None:
            if len(self._gateways) >= MAX_GATEWAY_GROUPS:
                raise resource_exhausted(
                    f"there are gateways with {MAX_GATEWAY_GROUPS} different profiles and scopes already"
                )
            sets = self._sets()
            if len(sets) >= MAX_GATEWAY_SETS and not (visible.is_all or visible in sets):
                raise resource_exhausted(
                    f"there are gateways with {MAX_GATEWAY_SETS} different scopes already: give several gateways the "
                    "same scopes"
                )
            group = self._gateways[key] = GatewaySubscribers(self._budget)
            self._begin_group(group)
        group.session_count += 1
        return group

    def grpc_subscribers(self, visible: NamePatterns = ALL_NAMES) -> GrpcSubscribers:
        """Counts one more gRPC client with these visible services, and returns their group.

        Raises `StreamRefused` at `MAX_GRPC_SETS`.
        """
        group = self._grpc.get(visible)
        if group is None:
            if len(self._grpc) >= MAX_GRPC_SETS:
                raise resource_exhausted(f"there are gRPC clients with {MAX_GRPC_SETS} different scopes already")
            group = self._grpc[visible] = GrpcSubscribers(self._budget, visible)
            self._begin_group(group)
            if self.publication:
                group.publish(self._compiled, None, self.publication, self.revision)
        group.session_count += 1
        return group

    def _begin_group(self, group: Subscribers) -> None:
        group.is_settling, group.departed_services = self._settled_at is not None, self._departed_services

    def has_grpc_subscriber(self, service: str) -> bool:
        """Returns whether a gRPC client that may read the service subscribes to it."""
        return any(group.has_subscriber(service) for group in self._grpc.values())

    def leave(self, subscribers: Subscribers) -> None:
        """Removes one client from the count of its group. A group without any client is dropped."""
        subscribers.session_count -= 1
        if not subscribers.session_count:
            self._gateways = {key: group for key, group in self._gateways.items() if group is not subscribers}
            self._grpc = {key: group for key, group in self._grpc.items() if group is not subscribers}
            sets = self._sets()
            self._parts = {visible: part for visible, part in self._parts.items() if visible in sets}

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
            source, compiled, parts = prepared
            # A set that has come while the publication was prepared is not compiled yet.
            found = [(group, key.profile, prepared.find(key.visible)) for key, group in self._gateways.items()]
            tables = [(group, part, part.gateway_resources(profile)) for group, profile, part in found if part]
            changed_services = source.changed_services(self._source)
            notified = set[Subscriber]()
            for grpc in self._grpc.values():
                notified |= grpc.publish(compiled, changed_services, publication, revision)
        except Exception:
            if not self._is_failing:
                _log.exception("revision %d can't be compiled for gateways; they keep what they have", revision)
            self._is_failing = True
            return self._publish_last_to_new_groups()
        begins = not snapshot.instance_count if not self.publication else snapshot.epoch != self.epoch
        self._compiled, self._parts, self._source = compiled, parts, source
        for group, part, resources in tables:
            notified |= group.publish(resources, publication, revision, part.unrouted, part.changed_names)
        is_first, self.publication, self.revision, self._is_failing = not self.publication, publication, revision, False
        if begins:
            self._settle(now + SETTLING_TIME)
        is_released = self._settled_at is not None and self._record_departures(snapshot, changed_services)
        return None if is_first or is_released else notified

    def _publish_last_to_new_groups(self) -> set[Subscriber]:
        """Publishes the last resources to the groups that have none yet. Returns the sessions to push to."""
        notified: set[Subscriber] = set()
        for key in self._new_groups():
            if not (key.visible.is_all or key.visible in self._parts):
                self._parts = {**self._parts, key.visible: self._part(key.visible).advance(*self._source)}
            compiled, group = _find(self._compiled, self._parts, key.visible), self._gateways[key]
            if compiled is not None:
                resources = compiled.gateway_resources(key.profile)
                notified |= group.publish(resources, self.publication, self.revision, compiled.unrouted)
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
        return (*self._gateways.values(), *self._grpc.values())


def _find(compiled: CompiledResources, parts: _Parts, visible: NamePatterns) -> CompiledResources | None:
    """Returns the resources of gateways with these visible services; None if they are not compiled."""
    if visible.is_all:
        return compiled
    part = parts.get(visible)
    return part.compiled if part is not None else None


def _count_visible(services: Iterable[str], sets: Collection[NamePatterns]) -> int:
    """Returns how many of the services are compiled, each once for all gateways and once for each set that has it."""
    return sum(1 + sum(visible.includes(service) for visible in sets) for service in services)


def _has_departures(service: ServiceSnapshot) -> bool:
    """Returns whether an instance is about to leave, or has left as far as recent changes show."""
    leaving = (Status.DRAINING, Status.MAINTENANCE)
    is_leaving = any(listing.status in leaving for listing in service.listings.values())
    return is_leaving or not all(step.listed for step in service.recent_changes)
