"""Subscribers: groups of clients that get the same resources under the same names.

Gateways with the same profile and the same visible services are a group, and so are all gRPC clients with the same
visible services. A group records the subscriptions, and notifies the sessions that a change concerns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Set
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

from adsum.core.access.scopes import ALL_NAMES, NamePatterns
from adsum.dialects.xds.streams.errors import resource_exhausted
from adsum.dialects.xds.streams.request import MAX_GATEWAY_NAMES
from adsum.gateway.encoding.clusters import clusters
from adsum.gateway.intent import selectors
from adsum.gateway.resources.compiled_resources import NO_RESOURCES, CompiledResources
from adsum.gateway.resources.resources import PUSH_ORDER, Resource, ResourceKind, encode_resource

MAX_NAME_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of the names that all clients subscribe to, about: 3 million names, or 100 gateways of 25,000 services. Past it
a stream that subscribes to more is ended."""
NAME_OVERHEAD_BYTES: Final = 300
"""Bytes that a name takes in a subscription beside its characters."""
MAX_GRPC_NAMES: Final = 2_000
"""Names in a gRPC client's subscription; a stream with more is ended."""
MAX_GRPC_RESOURCES: Final = 200_000
"""Different resources that all gRPC clients subscribe to, counted for each set of visible services; past it a stream
that names another one is ended."""
MAX_CACHED_UNKNOWN_RESOURCES: Final = 4_096
"""Resources of unknown services for gRPC clients that are cached; past it the one used longest ago is encoded again."""
MAX_LISTED_SERVICES: Final = 5
"""Services that a status names for one problem; of the others it shows the number."""

ResourcesByName = Mapping[str, Resource]
ResourcesByKind = Mapping[ResourceKind, ResourcesByName]
_NO_RESOURCES: Final[Mapping[str, Resource]] = MappingProxyType({})


class Subscriber(Protocol):
    """The session of one client, as a group knows it. It is hashed by identity."""

    def notify(self, kind: ResourceKind, changed: Iterable[str], removed: Mapping[str, Resource]) -> None:
        """Records that resources to which it subscribes have changed, or don't exist any more."""
        ...


_NO_SUBSCRIBERS: Final[Set[Subscriber]] = frozenset()


class NameBudget:
    """Limits what the clients of all groups subscribe to: `MAX_NAME_BYTES` and `MAX_GRPC_RESOURCES`."""

    def __init__(self) -> None:
        self.size = 0
        self.grpc_resources = 0

    def reserve(self, name: str) -> None:
        """Counts a name of one client. Raises `StreamRefused` past the limit."""
        size = NAME_OVERHEAD_BYTES + len(name)
        if self.size + size > MAX_NAME_BYTES:
            raise resource_exhausted("gateways and gRPC clients subscribe to too many names on this node")
        self.size += size

    def release(self, name: str) -> None:
        """Removes a name of one client from the count."""
        self.size -= NAME_OVERHEAD_BYTES + len(name)

    def reserve_grpc_resource(self) -> None:
        """Counts a resource that a group of gRPC clients subscribes to. Raises `StreamRefused` past the limit."""
        if self.grpc_resources >= MAX_GRPC_RESOURCES:
            raise resource_exhausted("gRPC clients subscribe to too many names on this node")
        self.grpc_resources += 1


class Subscribers(ABC):
    """A group of clients: their resources, the publication of these, and the subscriptions."""

    forgets_all_kinds = False
    """True if all kinds lack what is not registered again after an epoch began; else only assignments do."""

    def __init__(self, max_names: int, budget: NameBudget | None) -> None:
        """`budget` is shared by all groups of a node."""
        self.max_names = max_names
        """The maximum of names in a subscription."""
        self._budget = budget or NameBudget()
        self.publication = 0
        """The number of the latest publication; 0 before the first, until which nothing is sent."""
        self.revision = 0
        """The revision of the catalog at that publication."""
        self.is_settling = False
        """True if an epoch has only begun: what is missing in it may be registered again soon."""
        self.departed_services: Set[str] = frozenset()
        """Services of which an instance leaves or has left while the epoch settles."""
        self.unrouted: Set[str] = frozenset()
        """Assignments without an instance that takes requests, if other targets of a route have such instances.

        They are sent after the routes.
        """
        self.session_count = 0
        """The number of clients that have joined and not left."""
        self._by_name: dict[tuple[ResourceKind, str], set[Subscriber]] = {}
        self._by_kind: dict[ResourceKind, set[Subscriber]] = {}

    @property
    @abstractmethod
    def problems(self) -> str:
        """The problems for which these clients can't use some of their clusters; "" if there are none."""

    @abstractmethod
    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        """Returns the resource of that name; None if it does not exist."""

    @abstractmethod
    def names(self, kind: ResourceKind) -> Iterable[str]:
        """Returns the names of all resources of a kind, for clients that subscribe to all."""

    @abstractmethod
    def substitute(self, cluster: str, cause: str) -> Resource | None:
        """Returns a cluster that gives callers the cause why the real one is missing; None if clients do that."""

    def has_departures(self, assignment: str) -> bool:
        """Returns whether an instance of the assignment's service leaves or has left while the epoch settles."""
        return selectors.service_of_cluster(assignment) in self.departed_services

    def subscribe(self, session: Subscriber, kind: ResourceKind, names: Iterable[str]) -> None:
        """Subscribes a session to these names: it is notified when one of them changes. Raises `StreamRefused`."""
        for name in names:
            if session not in self._by_name.get((kind, name), _NO_SUBSCRIBERS):
                self._budget.reserve(name)
                self._by_name.setdefault((kind, name), set()).add(session)

    def unsubscribe(self, session: Subscriber, kind: ResourceKind, names: Iterable[str]) -> None:
        """Ends the subscription of a session to these names."""
        for name in names:
            subscribed = self._by_name.get((kind, name))
            if subscribed is not None and session in subscribed:
                subscribed.discard(session)
                self._budget.release(name)
                if not subscribed:
                    del self._by_name[kind, name]

    def subscribe_all(self, session: Subscriber, kind: ResourceKind, *, all: bool) -> None:
        """Starts (`all`) or ends the subscription of a session to all resources of that kind."""
        if all:
            self._by_kind.setdefault(kind, set()).add(session)
        else:
            self._by_kind.get(kind, set()).discard(session)

    def _notify(self, kind: ResourceKind, changed: list[str], removed: Mapping[str, Resource]) -> set[Subscriber]:
        """Notifies each session of what it subscribed to, and returns the notified sessions."""
        to_all = self._by_kind.get(kind, ())
        for session in to_all:
            session.notify(kind, changed, removed)
        notified = set(to_all)
        for name in (*changed, *removed):
            gone = {name: removed[name]} if name in removed else _NO_RESOURCES
            for session in self._by_name.get((kind, name), ()):
                session.notify(kind, () if gone else (name,), gone)
                notified.add(session)
        return notified


class GatewaySubscribers(Subscribers):
    """The gateways with one profile and the same visible services."""

    forgets_all_kinds = True

    def __init__(self, budget: NameBudget | None = None) -> None:
        super().__init__(MAX_GATEWAY_NAMES, budget)
        self._resources: ResourcesByKind = {}
        self._problems: tuple[object, str] = (None, "")
        """The clusters that were examined last, and the result."""

    @property
    def problems(self) -> str:
        table = self._resources.get(ResourceKind.CLUSTER, _NO_RESOURCES)
        if self._problems[0] is not table:
            self._problems = table, _problems(table.values())
        return self._problems[1]

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        return self._resources.get(kind, _NO_RESOURCES).get(name)

    def names(self, kind: ResourceKind) -> Iterable[str]:
        return self._resources.get(kind, _NO_RESOURCES)

    def substitute(self, cluster: str, cause: str) -> Resource | None:
        message = clusters.substitute_cluster(cluster, selectors.service_of_cluster(cluster), cause)
        return encode_resource(ResourceKind.CLUSTER, cluster, message, 0)

    def publish(
        self,
        resources: ResourcesByKind,
        publication: int,
        revision: int,
        unrouted: Set[str] = frozenset(),
        changed_names: Callable[[ResourcesByName, ResourcesByName], Set[str] | None] = lambda *_: None,
    ) -> set[Subscriber]:
        """Replaces the resources, and returns the sessions that must get something.

        `changed_names` returns the names in which two tables may differ; None: all of them.
        """
        before, self._resources, self.unrouted = self._resources, resources, unrouted
        self.publication, self.revision = publication, revision
        notified: set[Subscriber] = set()
        for kind in PUSH_ORDER:
            old, new = before.get(kind, _NO_RESOURCES), resources.get(kind, _NO_RESOURCES)
            if old is not new:
                changed, removed = difference(old, new, changed_names(old, new))
                if changed or removed:
                    notified |= self._notify(kind, changed, removed)
        return notified


class GrpcSubscribers(Subscribers):
    """The gRPC clients with the same visible services: they name everything that they want, and only that is compiled.

    A service that is not visible has the same resources as one that is not known.
    """

    problems = ""

    def __init__(self, budget: NameBudget | None = None, visible: NamePatterns = ALL_NAMES) -> None:
        super().__init__(MAX_GRPC_NAMES, budget)
        self._visible = visible
        self._find: Callable[[ResourceKind, str], Resource | None] = lambda *_: None
        self._published: dict[tuple[ResourceKind, str], Resource | None] = {}
        """The resources of all names that are subscribed to."""

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        published = self._published.get((kind, name))
        return published if published is not None else self._find(kind, name)

    def names(self, kind: ResourceKind) -> Iterable[str]:
        """Returns nothing: every name of a service may be resolved, so "all" would have no end."""
        return ()

    def substitute(self, cluster: str, cause: str) -> Resource | None:
        """Returns None: gRPC fails calls with its own reason."""
        return None

    def subscribe(self, session: Subscriber, kind: ResourceKind, names: Iterable[str]) -> None:
        super().subscribe(session, kind, names)
        for name in names:
            if (kind, name) not in self._published:
                self._budget.reserve_grpc_resource()
                self._published[kind, name] = self._find(kind, name)

    def has_subscriber(self, name: str) -> bool:
        """Returns whether a client subscribes to any resource of that service, and may read the service."""
        return self._visible.includes(name) and any((kind, name) in self._by_name for kind in ResourceKind)

    def unsubscribe(self, session: Subscriber, kind: ResourceKind, names: Iterable[str]) -> None:
        super().unsubscribe(session, kind, names)
        for name in names:
            if (kind, name) not in self._by_name and (kind, name) in self._published:
                del self._published[kind, name]
                self._budget.grpc_resources -= 1

    def publish(
        self, compiled: CompiledResources, changed_services: Set[str] | None, publication: int, revision: int
    ) -> set[Subscriber]:
        """Replaces the resources, and returns the sessions that must get something.

        Only resources of `changed_services` may differ from those before; None: all may.
        """
        self._find = find = compiled.grpc_resource if self._visible.is_all else self._visible_resource(compiled)
        self.publication, self.revision = publication, revision
        changes: dict[ResourceKind, tuple[list[str], dict[str, Resource]]] = {}
        for (kind, name), old in self._published_of(changed_services):
            new = find(kind, name)
            if new is old:
                continue
            self._published[kind, name] = new
            changed, removed = changes.setdefault(kind, ([], {}))
            if new is None:
                removed.update({name: old} if old is not None else {})
            elif old is None or old.version != new.version:
                changed.append(name)
        notified: set[Subscriber] = set()
        for kind, (changed, removed) in changes.items():
            notified |= self._notify(kind, changed, removed)
        return notified

    def _published_of(self, services: Set[str] | None) -> list[tuple[tuple[ResourceKind, str], Resource | None]]:
        if services is None:
            return list(self._published.items())
        names = filter(self._visible.includes, services)  # gRPC clients name services.
        keys = [(kind, name) for name in names for kind in PUSH_ORDER]
        return [(key, self._published[key]) for key in keys if key in self._published]

    def _visible_resource(self, compiled: CompiledResources) -> Callable[[ResourceKind, str], Resource | None]:
        """Returns the function that finds resources, those of invisible services as if these were unknown."""
        visible = self._visible

        def find(kind: ResourceKind, name: str) -> Resource | None:
            return compiled.grpc_resource(kind, name) if visible.includes(name) else _unknown_resource(kind, name)

        return find


@lru_cache(MAX_CACHED_UNKNOWN_RESOURCES)
def _unknown_resource(kind: ResourceKind, name: str) -> Resource | None:
    """Returns the resource of an unknown service for gRPC clients."""
    return NO_RESOURCES.grpc_resource(kind, name)


def difference(
    old: ResourcesByName, new: ResourcesByName, names: Set[str] | None = None
) -> tuple[list[str], dict[str, Resource]]:
    """Returns the names of resources that are new or have changed, and the resources that are gone.

    `names`: the only names in which the two may differ; None: all.
    """
    changed = []
    for name in new if names is None else [name for name in names if name in new]:
        before, resource = old.get(name), new[name]
        if before is not resource and (before is None or before.version != resource.version):
            changed.append(name)
    gone = old.keys() - new.keys() if names is None else {name for name in names if name in old and name not in new}
    return changed, {name: old[name] for name in gone}


def _problems(resources: Iterable[Resource]) -> str:
    """Describes the problems of clusters, each with the services that have it."""
    services: dict[str, dict[str, None]] = {}
    for cluster in resources:
        if cluster.problem:
            services.setdefault(cluster.problem, {})[selectors.service_of_cluster(cluster.name)] = None
    return "; ".join(f"{_listed(list(names))}: {problem}" for problem, names in services.items())


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_LISTED_SERVICES
    return ", ".join(names[:MAX_LISTED_SERVICES]) + (f" and {more} more" if more > 0 else "")
