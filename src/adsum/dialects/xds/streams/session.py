"""The session of one stream: a state machine from requests to responses. It has no clock, socket or task.

Order of responses: clusters, their assignments, filters, then listeners and routes, so that nothing is named before it
was sent (clients apply one response after the other). Removals come last, in the opposite order, once everything else
is acknowledged. An assignment that has lost all instances that take requests is sent once the routes no longer lead
there. At most one response of each kind is in flight: a slow client skips versions, and no queue can grow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from types import ModuleType
from typing import Final

from adsum.dialects.xds.streams import responses
from adsum.dialects.xds.streams.request import ResourceRequest
from adsum.dialects.xds.streams.resource_view import ResourceView, is_named
from adsum.dialects.xds.streams.subscription import Subscription, SubscriptionChange
from adsum.dialects.xds.streams.tls_clusters import TlsClusters
from adsum.dialects.xds.subscribers import Subscribers
from adsum.gateway.resources.resources import PUSH_ORDER, Resource, ResourceKind

DEPENDENCY_TIMEOUT: Final = 5.0
"""Seconds for which listeners and routes wait until what they name is acknowledged; then they are sent anyway."""
DEPENDENCY_KINDS: Final = frozenset(
    {ResourceKind.CLUSTER, ResourceKind.ASSIGNMENT, ResourceKind.SECRET, ResourceKind.FILTER}
)
"""Kinds that listeners and routes name, and therefore wait for."""
_NO_NAMES: Final = frozenset[str]()


class StreamSession:
    """The state of one client: its subscriptions, its resources, and what must be sent."""

    __slots__ = (
        "_awaited",
        "_deferred_since",
        "_examined_publication",
        "_initial_assignments",
        "_is_known_current",
        "_resources",
        "_subscribers",
        "_subscriptions",
        "_tls_clusters",
        "_variant",
        "is_returning",
    )

    def __init__(self, variant: ModuleType, subscribers: Subscribers) -> None:
        """`variant` is the module `delta` or `sotw`."""
        self._variant = variant
        self._subscribers = subscribers
        self._resources = ResourceView(subscribers)
        self._subscriptions: dict[ResourceKind, Subscription] = {}
        self._awaited: set[str] = set()
        """Clusters that were sent and whose assignment the client has not subscribed to yet."""
        self._tls_clusters = TlsClusters(self._resources)
        self._initial_assignments: dict[str, str] = {}
        """Assignments that the client had when it connected, or when an epoch began, by version; "" if unknown."""
        self._examined_publication = -1
        """The publication at which those were examined last; those that may be sent by then are removed from them."""
        self._deferred_since: float | None = None
        """The time since which listeners, routes or removals wait for other responses; None while nothing waits."""
        self._is_known_current = False
        """True if the client was found to be current, and nothing has happened since."""
        self.is_returning = False
        """True if the client had resources when it connected, or when an epoch began."""

    @property
    def subscriptions(self) -> Mapping[ResourceKind, Subscription]:
        return self._subscriptions

    def receive(self, request: ResourceRequest) -> str:
        """Applies a request, and returns the client's reason to reject the last response of its kind, "" for none.

        Raises `StreamRefused`.
        """
        self._is_known_current = False
        kind, subscribers = request.kind, self._subscribers
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            subscription = self._subscriptions[kind] = Subscription(kind, subscribers.max_names)
        is_first, wildcard = not subscription.is_started, subscription.wildcard
        in_flight = subscription.in_flight
        change: SubscriptionChange = self._variant.receive(subscription, request, self._resources)
        if is_first and request.is_returning:
            self.is_returning = True
            if kind is ResourceKind.ASSIGNMENT:
                self._initial_assignments = dict(request.initial_versions) or dict.fromkeys(request.names, "")
                self._examined_publication = -1
        subscribers.unsubscribe(self, kind, change.removed)
        subscribers.subscribe(self, kind, change.added)
        if subscription.wildcard is not wildcard:
            subscribers.subscribe_all(self, kind, all=subscription.wildcard)
        if kind is ResourceKind.ASSIGNMENT:
            self._awaited -= subscription.names
            self._resend_clusters(self._resources.discard(change.added))
        elif kind is ResourceKind.CLUSTER and change.rejection:
            self._tls_clusters.record_rejected(in_flight or (), change.rejection)
            self._record_rejected_clusters(subscription.changed_in_flight, change.rejection)
        elif kind is ResourceKind.CLUSTER and in_flight is not None and subscription.in_flight is None:
            self._tls_clusters.record_accepted(in_flight)
        return change.rejection

    def notify(self, kind: ResourceKind, changed: Iterable[str], removed: Mapping[str, Resource]) -> None:
        """Records that resources to which it subscribes have changed, or don't exist any more."""
        self._is_known_current = False
        subscription = self._subscriptions.get(kind)
        if subscription is not None:
            subscription.notify(changed, removed)
        if kind is ResourceKind.CLUSTER:
            self._awaited.difference_update(removed)
            self._tls_clusters.remove(removed)
            self._resources.discard(removed)

    def next_response(self, now: float) -> bytes | None:
        """Returns the next response, None if there is none to send now. Call it until it returns None."""
        if not self._subscribers.publication:
            return None
        if self._resources:
            self._resend_clusters(self._resources.retry_due(now))
        response = self._respond(ResourceKind.ASSIGNMENT) if self._withholds_other_kinds() else self._next(now)
        if response is not None:
            self._is_known_current = False
        return response

    def _next(self, now: float) -> bytes | None:
        for kind in PUSH_ORDER:
            if kind in DEPENDENCY_KINDS or self._is_ready(kind, now):
                after_routes = self._after_routes(now) if kind is ResourceKind.ASSIGNMENT else _NO_NAMES
                response = self._respond(kind, later=after_routes)
                if response is not None:
                    return response
        return self._removal(now)

    def _after_routes(self, now: float) -> Set[str]:
        """Returns the assignments to send after the ACK of routes that are in flight or can be sent now.

        If they were sent before, requests would go to instances that take none. The client keeps its old assignment
        until then; one that the client lacks, or whose cluster has changed, is not delayed.
        """
        routes = self._subscriptions.get(ResourceKind.ROUTES)
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        if routes is None or assignments is None or not (assignments.pending and self._subscribers.unrouted):
            return _NO_NAMES
        if routes.in_flight is None and not self._is_ready(ResourceKind.ROUTES, now):
            return _NO_NAMES
        return {name for name in assignments.pending & self._subscribers.unrouted if assignments.versions.get(name)}

    def begin_epoch(self) -> None:
        """Records that another epoch begins. What it lacks of the client's resources may be registered again soon."""
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        if assignments is not None and assignments.versions:
            self._initial_assignments = dict(assignments.versions)
            self._examined_publication = -1
            self.is_returning = True

    def close(self) -> None:
        """Unsubscribes from everything, since the stream has ended."""
        for kind, subscription in self._subscriptions.items():
            self._subscribers.unsubscribe(self, kind, subscription.names)
            self._subscribers.subscribe_all(self, kind, all=False)

    @property
    def has_deferred(self) -> bool:
        """True if a response may be sent later without a change: it waits for others, or was rejected."""
        return self._deferred_since is not None or bool(self._resources)

    def rejection(self, kind: ResourceKind) -> str:
        """Returns why the client rejects or can't use something of a kind; "" if it uses all."""
        reason = self._subscriptions[kind].rejection if kind in self._subscriptions else ""
        if reason or kind is not ResourceKind.CLUSTER:
            return reason
        return self._resources.rejection or self._subscribers.problems

    @property
    def is_current(self) -> bool:
        """True if the client has answered everything that there is to send, and has accepted all assignments."""
        if not self._is_known_current:
            self._is_known_current = self._is_current()
        return self._is_known_current

    def _is_current(self) -> bool:
        if not self._subscribers.publication:
            return False
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        if self._withholds_other_kinds():
            return assignments is not None and self._is_answered(assignments) and not self._awaited
        if not all(map(self._is_answered, self._subscriptions.values())):
            return False
        if assignments is None:
            clusters = self._subscriptions.get(ResourceKind.CLUSTER)
            return not self.is_returning or (clusters is not None and not clusters.versions)
        return not self._awaited

    def _is_answered(self, subscription: Subscription) -> bool:
        """Returns whether the client has answered everything that there is to send of a kind.

        Assignments must be accepted; other kinds may be rejected. A withheld assignment counts as accepted unless one
        of its instances is known to have left.
        """
        if subscription.in_flight is not None or subscription.needs_response:
            return False
        if subscription.kind is not ResourceKind.ASSIGNMENT:
            return not subscription.pending
        kept = {name for name in self._withheld() if not self._subscribers.has_departures(name)}
        return not (subscription.rejected or subscription.pending - kept)

    def _respond(self, kind: ResourceKind, *, removing: bool = False, later: Set[str] = _NO_NAMES) -> bytes | None:
        subscription = self._subscriptions.get(kind)
        if subscription is None or subscription.in_flight is not None:
            return None
        is_assignment = kind is ResourceKind.ASSIGNMENT
        withheld = subscription.pending & (self._withheld() | later) if is_assignment else _NO_NAMES
        subscription.pending -= withheld
        if kind is ResourceKind.CLUSTER and not subscription.nonce:
            self._tls_clusters.record_initial(subscription.pending_versions)
        subscribers = self._subscribers
        response: bytes | None = self._variant.respond(
            subscription, self._resources, subscribers.publication, subscribers.revision, removing=removing
        )
        subscription.pending |= withheld
        if response is not None and kind is ResourceKind.CLUSTER:
            self._tls_clusters.record_sent(subscription.in_flight or ())
            if not removing:
                self._follow_clusters(subscription.changed_in_flight)
        return response

    def _follow_clusters(self, clusters: Iterable[str]) -> None:
        """Sends assignments of changed clusters again, as clients need them; awaits subscriptions for new clusters."""
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        for name in clusters:
            if name in self._resources or self._subscribers.find(ResourceKind.ASSIGNMENT, name) is None:
                continue
            if assignments is not None and assignments.includes(name):
                assignments.resend(name)
            else:
                self._awaited.add(name)

    def _record_rejected_clusters(self, clusters: Collection[str], reason: str) -> None:
        """Records the rejected clusters of a response, whose callers get the reason.

        The client has subscribed to the assignments of the clusters that it accepted, so no further subscription is
        awaited. It keeps its version of a cluster that it had before, and callers of that one get no reason, except if
        the cluster is to use TLS from now on, since the client's version sends plain text.
        """
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        self._awaited.difference_update(clusters)
        rejected = [
            name
            for name in clusters
            if assignments is None
            or not assignments.includes(name)
            or (self._would_send_plain_text(name) and is_named(name, reason))
        ]
        self._resend_clusters(self._resources.record_rejected(rejected, reason))

    def _would_send_plain_text(self, cluster: str) -> bool:
        """Returns whether the cluster uses TLS and the client's version of it does not."""
        found = self._subscribers.find(ResourceKind.CLUSTER, cluster)
        return found is not None and found.has_tls and cluster not in self._tls_clusters

    def _resend_clusters(self, names: Iterable[str]) -> None:
        for name in names:
            self._subscriptions[ResourceKind.CLUSTER].resend(name)

    def _is_ready(self, kind: ResourceKind, now: float) -> bool:
        """Returns whether listeners or routes may be sent: what they name was sent, or they have waited long enough."""
        subscription = self._subscriptions.get(kind)
        if subscription is None or not (subscription.pending or subscription.needs_response):
            return False
        dependencies = [self._subscriptions[named] for named in DEPENDENCY_KINDS if named in self._subscriptions]
        is_blocked = any(dependency.in_flight is not None and dependency.pending for dependency in dependencies)
        return self._is_clear(now, is_blocked)

    def _is_clear(self, now: float, is_blocked: bool) -> bool:
        """Returns whether nothing must be waited for, or the wait has timed out.

        `is_blocked`: a response is in flight that must be answered first. Awaited subscriptions are waited for, too.
        """
        if not (self._awaited or is_blocked):
            self._deferred_since = None
            return True
        if self._deferred_since is None:
            self._deferred_since = now
        if now - self._deferred_since < DEPENDENCY_TIMEOUT:
            return False
        self._awaited.clear()
        return True

    def _removal(self, now: float) -> bytes | None:
        """Returns a response that removes resources of one kind, once everything else is acknowledged."""
        subscriptions = self._subscriptions.values()
        if not any(subscription.pending for subscription in subscriptions):
            self._deferred_since = None
            return None
        if not self._is_clear(now, any(subscription.in_flight is not None for subscription in subscriptions)):
            return None
        for kind in reversed(PUSH_ORDER):
            response = self._respond(kind, removing=True)
            if response is not None:
                return response
        return None

    def _withholds_other_kinds(self) -> bool:
        """Returns whether only assignments may be sent: the other kinds would lack what is not registered again yet."""
        subscribers = self._subscribers
        if not (self.is_returning and subscribers.is_settling and subscribers.forgets_all_kinds):
            return False
        return ResourceKind.ASSIGNMENT not in self._subscriptions or bool(self._withheld())

    def _withheld(self) -> Set[str]:
        """Returns the assignments to withhold until the epoch has settled: they may lack instances of the client's.

        An assignment is sent earlier if it equals the client's, or if an instance of its service leaves: the client
        must know that at once, even if instances that are not registered again yet are then missing. If no instance
        would be left to take calls, it is withheld all the same.
        """
        if not (self._initial_assignments and self._subscribers.is_settling):
            return _NO_NAMES
        if self._examined_publication != self._subscribers.publication:
            self._examined_publication = self._subscribers.publication
            self._initial_assignments = {
                name: version
                for name, version in self._initial_assignments.items()
                if self._may_lack_instances(name, version)
            }
        return self._initial_assignments.keys()

    def _may_lack_instances(self, name: str, version: str) -> bool:
        """Returns whether the published assignment may lack instances that the client's version has."""
        subscription, subscribers = self._subscriptions.get(ResourceKind.ASSIGNMENT), self._subscribers
        if subscription is not None and not subscription.includes(name):
            return False
        assignment = subscribers.find(ResourceKind.ASSIGNMENT, name)
        if assignment is not None and assignment.version == version:
            return False
        if version in responses.empty_versions(name):
            return False
        if assignment is None or not subscribers.has_departures(name):
            return True
        return responses.has_no_callable_endpoint(assignment.delta)
