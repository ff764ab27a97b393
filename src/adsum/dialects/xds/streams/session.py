"""One stream as a state machine: what it hears and what it says next. No clock, socket or task in here.

Order: clusters, their assignments, filters, then listeners and routes, so that nothing is named before it was said
(clients take in one response after the other); what is gone is removed last, once all that is acknowledged, in the
opposite order. An assignment that lost everybody who takes requests is said once routes no longer lead there.
Of each kind at most one response is on its way: whoever is slow is told less often, and no queue can grow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from types import ModuleType
from typing import Final, Protocol

from adsum.dialects.xds.streams import responses
from adsum.dialects.xds.streams.request import ResourceRequest
from adsum.dialects.xds.streams.resource_view import ResourceView, SubstituteLookup
from adsum.dialects.xds.streams.subscription import Subscription, SubscriptionChange
from adsum.gateway.resources.resources import PUSH_ORDER, Resource, ResourceKind

DEPENDENCY_TIMEOUT: Final = 5.0
"""Seconds for which listeners and routes wait until what they name is acknowledged; then they are sent anyway."""

DEPENDENCY_KINDS: Final = frozenset(
    {ResourceKind.CLUSTER, ResourceKind.ASSIGNMENT, ResourceKind.SECRET, ResourceKind.FILTER}
)
"""Kinds that listeners and routes name, and so wait for."""
_NONE: Final = frozenset[str]()


class SubscriberPlace(SubstituteLookup, Protocol):
    """What a client is to see, and at which publication; it wants to be told of changes of what is subscribed to."""

    @property
    def publication(self) -> int:
        """Of the publication; 0 before the first: nothing is answered before the catalog is loaded."""
        ...

    @property
    def revision(self) -> int:
        """Of the catalog at it."""
        ...

    @property
    def is_settling(self) -> bool:
        """Whether an epoch has only begun: what is missing in it may only have not come back yet."""
        ...

    @property
    def forgets_all_kinds(self) -> bool:
        """Whether clusters, listeners and routes, too, lack what an epoch that has only begun does not know yet."""
        ...

    @property
    def unrouted(self) -> Set[str]:
        """Assignments in which nobody takes requests, and to which routes lead only if nobody does elsewhere either."""
        ...

    @property
    def troubles(self) -> str:
        """What such clients can't use of their clusters, and why; "" if they can use all."""
        ...

    def has_departures(self, assignment: str) -> bool:
        """Whether the epoch that has only begun says of an instance of that service that it leaves or left."""
        ...

    def subscribe(self, session: StreamSession, kind: ResourceKind, names: Iterable[str]) -> None:
        """Have `told` called when one of them changes."""
        ...

    def unsubscribe(self, session: StreamSession, kind: ResourceKind, names: Iterable[str]) -> None:
        """No longer."""
        ...

    def subscribe_all(self, session: StreamSession, kind: ResourceKind, *, all: bool) -> None:
        """Have `told` called when anything of that kind changes, or no longer."""
        ...


class StreamSession:
    """What one client asked for, has, and is owed. `variant` is the module `delta` or `sotw`."""

    __slots__ = (
        "_awaited",
        "_brought",
        "_checked",
        "_current",
        "_encrypted",
        "_held_since",
        "_place",
        "_sight",
        "_subscriptions",
        "_variant",
        "is_returning",
    )

    def __init__(self, variant: ModuleType, place: SubscriberPlace) -> None:
        self._variant = variant
        self._place = place
        self._sight = ResourceView(place)
        self._subscriptions: dict[ResourceKind, Subscription] = {}
        self._awaited: set[str] = set()
        """Clusters that the client was told of and whose assignment it has not asked for yet."""
        self._encrypted: set[str] = set()
        """The clusters that the client took last as ones that may speak TLS."""
        self._brought: dict[str, str] = {}
        """Assignments that it had when it came, or when an epoch began, by version; "" if that is not known."""
        self._checked = -1
        """The publication at which that was looked through last: what may be said by then is no longer in there."""
        self._held_since: float | None = None
        self._current = False
        """Whether it was found to be current, and nothing has happened since."""
        self.is_returning = False
        """Whether it had something when it came."""

    @property
    def subscriptions(self) -> Mapping[ResourceKind, Subscription]:
        return self._subscriptions

    def receive(self, request: ResourceRequest) -> str:
        """Take a request; why the client rejects the last response of that kind, "" if it does not."""
        self._current = False
        kind, place = request.kind, self._place
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            subscription = self._subscriptions[kind] = Subscription(kind, place.max_names)
        first, wildcard, flight = not subscription.is_started, subscription.wildcard, subscription.in_flight
        heard: SubscriptionChange = self._variant.receive(subscription, request, self._sight)
        if first and request.is_returning:
            self.is_returning = True
            if kind is ResourceKind.ASSIGNMENT:
                self._brought = (
                    dict(request.initial_versions) if request.initial_versions else dict.fromkeys(request.names, "")
                )
                self._checked = -1
        place.unsubscribe(self, kind, heard.removed)
        place.subscribe(self, kind, heard.added)
        if subscription.wildcard is not wildcard:
            place.subscribe_all(self, kind, all=subscription.wildcard)
        if kind is ResourceKind.ASSIGNMENT:
            self._awaited -= subscription.names
            self._say_clusters_again(self._sight.discard(heard.added))
        elif kind is ResourceKind.CLUSTER and heard.rejection:
            self._note_refused(subscription.changed_in_flight, heard.rejection)
        elif kind is ResourceKind.CLUSTER and flight is not None and subscription.in_flight is None:
            self._note_taken(subscription.changed_in_flight)
        return heard.rejection

    def notify(self, kind: ResourceKind, changed: Iterable[str], removed: Mapping[str, Resource]) -> None:
        """Some resources that it subscribed to are no longer as they were."""
        self._current = False
        subscription = self._subscriptions.get(kind)
        if subscription is not None:
            subscription.notify(changed, removed)
        if kind is ResourceKind.CLUSTER:
            self._awaited.difference_update(removed)
            self._encrypted.difference_update(removed)
            self._sight.discard(removed)

    def next_response(self, now: float) -> bytes | None:
        """The next response, if one is to be sent now. To be asked for until there is none."""
        if not self._place.publication:
            return None
        if self._sight:
            self._say_clusters_again(self._sight.retry_due(now))
        response = self._say(ResourceKind.ASSIGNMENT) if self._withholds_all() else self._next(now)
        if response is not None:
            self._current = False
        return response

    def _next(self, now: float) -> bytes | None:
        for kind in PUSH_ORDER:
            if kind in DEPENDENCY_KINDS or self._may_name(kind, now):
                response = self._say(kind, later=self._vacated(now) if kind is ResourceKind.ASSIGNMENT else _NONE)
                if response is not None:
                    return response
        return self._removal(now)

    def _vacated(self, now: float) -> Set[str]:
        """Assignments to say when the routes are acknowledged that can be said now, or are on their way.

        Between the two, requests would be sent to those who take none. A client that lacks one, or whose cluster
        changed, waits for it.
        """
        routes, assignments = (
            self._subscriptions.get(ResourceKind.ROUTES),
            self._subscriptions.get(ResourceKind.ASSIGNMENT),
        )
        if routes is None or assignments is None or not (assignments.pending and self._place.unrouted):
            return _NONE
        if routes.in_flight is None and not self._may_name(ResourceKind.ROUTES, now):
            return _NONE
        return {name for name in assignments.pending & self._place.unrouted if assignments.versions.get(name)}

    def begin_epoch(self) -> None:
        """Another epoch begins: what the client has now may be missing there only because it has not come back yet."""
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        if assignments is not None and assignments.versions:
            self._brought, self._checked, self.is_returning = dict(assignments.versions), -1, True

    def close(self) -> None:
        """The stream ended."""
        for kind, subscription in self._subscriptions.items():
            self._place.unsubscribe(self, kind, subscription.names)
            self._place.subscribe_all(self, kind, all=False)

    @property
    def has_deferred(self) -> bool:
        """Whether something may be sent later without a change: it waits for others, or was refused."""
        return self._held_since is not None or bool(self._sight)

    def rejection(self, kind: ResourceKind) -> str:
        """Why the client rejects or can't use something of a kind; "" if it uses all."""
        words = self._subscriptions[kind].rejection if kind in self._subscriptions else ""
        return words or (self._sight.rejection or self._place.troubles if kind is ResourceKind.CLUSTER else "")

    @property
    def is_current(self) -> bool:
        """Whether the client has acknowledged everything that there is to say to it, assignments without objection."""
        if not self._current:
            self._current = self._is_current()
        return self._current

    def _is_current(self) -> bool:
        if not self._place.publication:
            return False
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        if self._withholds_all():
            return assignments is not None and self._is_acknowledged(assignments) and not self._awaited
        if not all(map(self._is_acknowledged, self._subscriptions.values())):
            return False
        if assignments is None:
            clusters = self._subscriptions.get(ResourceKind.CLUSTER)
            return not self.is_returning or (clusters is not None and not clusters.versions)
        return not self._awaited

    def _is_acknowledged(self, subscription: Subscription) -> bool:
        """Whether the client has taken all there is to say of a kind.

        An assignment that is withheld counts as taken while nobody in it has left, as far as is known. Kinds other than
        assignments may be rejected.
        """
        if subscription.in_flight is not None or subscription.needs_response:
            return False
        if subscription.kind is not ResourceKind.ASSIGNMENT:
            return not subscription.pending
        kept = {name for name in self._withheld() if not self._place.has_departures(name)}
        return not (subscription.rejected or subscription.pending - kept)

    def _say(self, kind: ResourceKind, *, removing: bool = False, later: Set[str] = _NONE) -> bytes | None:
        subscription = self._subscriptions.get(kind)
        if subscription is None or subscription.in_flight is not None:
            return None
        withheld = subscription.pending & (self._withheld() | later) if kind is ResourceKind.ASSIGNMENT else _NONE
        subscription.pending -= withheld
        place = self._place
        response: bytes | None = self._variant.respond(
            subscription, self._sight, place.publication, place.revision, removing=removing
        )
        subscription.pending |= withheld
        if response is not None and kind is ResourceKind.CLUSTER and not removing:
            self._follow_up(subscription.changed_in_flight)
        return response

    def _follow_up(self, clusters: Iterable[str]) -> None:
        """A cluster that changed waits for its assignment to be said again, even as it was; a new one is asked for."""
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        for name in clusters:
            if name in self._sight or self._place.find(ResourceKind.ASSIGNMENT, name) is None:
                continue
            if assignments is not None and assignments.includes(name):
                assignments.resend(name)
            else:
                self._awaited.add(name)

    def _note_refused(self, clusters: Collection[str], words: str) -> None:
        """Wait for none of the clusters in a response that the client rejects: it has asked for what it took by now.

        Of one that it had before it goes on with what it had; what is refused of the others is told to callers. So is
        what is refused of one that is to speak TLS from now on: what it had sends requests there in plain text.
        """
        assignments = self._subscriptions.get(ResourceKind.ASSIGNMENT)
        self._awaited.difference_update(clusters)
        refused = [
            name
            for name in clusters
            if assignments is None
            or not assignments.includes(name)
            or (self._is_exposed(name) and f" {name}: " in words)
        ]
        self._say_clusters_again(self._sight.record_rejected(refused, words))

    def _note_taken(self, clusters: Collection[str]) -> None:
        for name in clusters:
            found = self._sight.find(ResourceKind.CLUSTER, name)
            if found is not None and found.has_tls:
                self._encrypted.add(name)
            else:
                self._encrypted.discard(name)

    def _is_exposed(self, cluster: str) -> bool:
        """Whether instances of the cluster speak TLS, and the client has one that does not."""
        found = self._place.find(ResourceKind.CLUSTER, cluster)
        return found is not None and found.has_tls and cluster not in self._encrypted

    def _say_clusters_again(self, names: Iterable[str]) -> None:
        for name in names:
            self._subscriptions[ResourceKind.CLUSTER].resend(name)

    def _may_name(self, kind: ResourceKind, now: float) -> bool:
        """Whether what listeners and routes name has been said by now, or has been waited for long enough."""
        subscription = self._subscriptions.get(kind)
        if subscription is None or not (subscription.pending or subscription.needs_response):
            return False
        waits = (self._subscriptions[named] for named in DEPENDENCY_KINDS if named in self._subscriptions)
        return self._clear(now, any(each.in_flight is not None and each.pending for each in waits))

    def _clear(self, now: float, busy: bool) -> bool:
        """Whether nothing is waited for, and no assignment is asked for soon; or that has been so for long enough."""
        if not (self._awaited or busy):
            self._held_since = None
            return True
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since < DEPENDENCY_TIMEOUT:
            return False
        self._awaited.clear()
        return True

    def _removal(self, now: float) -> bytes | None:
        """Say what is gone, of one kind after the other, once all else is acknowledged."""
        if not any(each.pending for each in self._subscriptions.values()):
            self._held_since = None
            return None
        if not self._clear(now, any(each.in_flight is not None for each in self._subscriptions.values())):
            return None
        for kind in reversed(PUSH_ORDER):
            response = self._say(kind, removing=True)
            if response is not None:
                return response
        return None

    def _withholds_all(self) -> bool:
        """Whether only assignments may be said: the other kinds would lack what has not come back yet."""
        if not (self.is_returning and self._place.is_settling and self._place.forgets_all_kinds):
            return False
        return ResourceKind.ASSIGNMENT not in self._subscriptions or bool(self._withheld())

    def _withheld(self) -> Set[str]:
        """Assignments that the client keeps as it has them: ours may lack instances that have not come back yet.

        Until the epoch has settled. One is said before that if it says what the client has, or if an instance of its
        service leaves: that must be heard at once, even though those that have not come back are then missing; unless
        nobody else is there to take the calls.
        """
        if not (self._brought and self._place.is_settling):
            return _NONE
        if self._checked != self._place.publication:
            self._checked = self._place.publication
            self._brought = {name: version for name, version in self._brought.items() if self._may_lack(name, version)}
        return self._brought.keys()

    def _may_lack(self, name: str, version: str) -> bool:
        subscription, place = self._subscriptions.get(ResourceKind.ASSIGNMENT), self._place
        if subscription is not None and not subscription.includes(name):
            return False
        assignment = place.find(ResourceKind.ASSIGNMENT, name)
        if assignment is not None and assignment.version == version:
            return False
        if version in responses.empty_versions(name):
            return False
        return (
            assignment is None or not place.has_departures(name) or responses.has_no_callable_endpoint(assignment.delta)
        )
