"""Audiences: clients that are told the same of the same name. Who subscribed to what, and what changed for whom.

Gateways of one shape are an audience, and so are all gRPC clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from types import MappingProxyType
from typing import Final

from adsum.dialects.xds.streams.errors import resource_exhausted
from adsum.dialects.xds.streams.request import MAX_GATEWAY_NAMES
from adsum.dialects.xds.streams.session import StreamSession
from adsum.gateway.encoding.clusters import clusters
from adsum.gateway.intent import selectors
from adsum.gateway.resources.compiled_resources import CompiledResources
from adsum.gateway.resources.resources import PUSH_ORDER, Resource, ResourceKind, encode_resource

MAX_NAME_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of the names that all clients subscribe to, about: 3 million names, or 100 gateways of 25,000 services. Past it
a stream that subscribes to more is ended."""
NAME_OVERHEAD_BYTES: Final = 300
"""Bytes that a name takes in a subscription beside its characters."""
MAX_GRPC_NAMES: Final = 2_000
"""Names in a gRPC client's subscription; a stream with more is ended."""
MAX_GRPC_RESOURCES: Final = 200_000
"""Different resources that all gRPC clients subscribe to; past it a stream that names another one is ended."""
MAX_LISTED_SERVICES: Final = 5
"""Services that a status names for one problem; of the others it shows the number."""

ResourcesByName = Mapping[str, Resource]
ResourcesByKind = Mapping[ResourceKind, ResourcesByName]
_NONE: Final[Mapping[str, Resource]] = MappingProxyType({})
_NOBODY: Final[Set[StreamSession]] = frozenset()


class NameBudget:
    """Counts the bytes of the names that the clients of all audiences gave."""

    def __init__(self) -> None:
        self.size = 0

    def reserve(self, name: str) -> None:
        """A client gave the name. Raises `Refused` past the bound."""
        size = NAME_OVERHEAD_BYTES + len(name)
        if self.size + size > MAX_NAME_BYTES:
            raise resource_exhausted("gateways and gRPC clients ask this node for too many names")
        self.size += size

    def release(self, name: str) -> None:
        """It no longer asks for it."""
        self.size -= NAME_OVERHEAD_BYTES + len(name)


class Subscribers:
    """Who subscribed to what."""

    forgets_all_kinds = False
    """Whether all its kinds lack what a new epoch does not know yet; else only assignments do."""

    def __init__(self, max_names: int, budget: NameBudget | None) -> None:
        self.max_names = max_names
        self._held = budget or NameBudget()
        self.publication = 0
        self.revision = 0
        self.is_settling = False
        self.departed_services: Set[str] = frozenset()
        """Services of which an instance leaves or left while the epoch settles."""
        self.unrouted: Set[str] = frozenset()
        self.session_count = 0
        """How many have joined and not left."""
        self._by_name: dict[tuple[ResourceKind, str], set[StreamSession]] = {}
        self._by_kind: dict[ResourceKind, set[StreamSession]] = {}

    def has_departures(self, assignment: str) -> bool:
        return selectors.service_of_cluster(assignment) in self.departed_services

    def subscribe(self, session: StreamSession, kind: ResourceKind, names: Iterable[str]) -> None:
        for name in names:
            there = self._by_name.get((kind, name), _NOBODY)
            if session not in there:
                self._held.reserve(name)
                self._by_name.setdefault((kind, name), set()).add(session)

    def unsubscribe(self, session: StreamSession, kind: ResourceKind, names: Iterable[str]) -> None:
        for name in names:
            there = self._by_name.get((kind, name))
            if there is not None and session in there:
                there.discard(session)
                self._held.release(name)
                if not there:
                    del self._by_name[kind, name]

    def subscribe_all(self, session: StreamSession, kind: ResourceKind, *, all: bool) -> None:
        if all:
            self._by_kind.setdefault(kind, set()).add(session)
        else:
            self._by_kind.get(kind, set()).discard(session)

    def _tell(self, kind: ResourceKind, changed: list[str], removed: Mapping[str, Resource]) -> set[StreamSession]:
        """Tell everybody who subscribed to these, and only of those that they subscribed to."""
        everything = self._by_kind.get(kind, ())
        for session in everything:
            session.notify(kind, changed, removed)
        told = set(everything)
        for name in (*changed, *removed):
            gone = {name: removed[name]} if name in removed else _NONE
            for session in self._by_name.get((kind, name), ()):
                session.notify(kind, () if gone else (name,), gone)
                told.add(session)
        return told


class GatewaySubscribers(Subscribers):
    """Gateways of one shape."""

    forgets_all_kinds = True

    def __init__(self, budget: NameBudget | None = None) -> None:
        """`budget` is shared by all audiences of a node."""
        super().__init__(MAX_GATEWAY_NAMES, budget)
        self._resources: ResourcesByKind = {}
        self._troubles: tuple[object, str] = (None, "")
        """The clusters that were looked through, and what was found."""

    @property
    def troubles(self) -> str:
        table = self._resources.get(ResourceKind.CLUSTER, _NONE)
        if self._troubles[0] is not table:
            self._troubles = table, _troubles(table.values())
        return self._troubles[1]

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        return self._resources.get(kind, _NONE).get(name)

    def names(self, kind: ResourceKind) -> Iterable[str]:
        return self._resources.get(kind, _NONE)

    def substitute(self, cluster: str, cause: str) -> Resource | None:
        return encode_resource(
            ResourceKind.CLUSTER,
            cluster,
            clusters.substitute_cluster(cluster, selectors.service_of_cluster(cluster), cause),
            0,
        )

    def publish(
        self,
        resources: ResourcesByKind,
        publication: int,
        revision: int,
        unrouted: Set[str] = frozenset(),
        changed_names: Callable[[ResourcesByName, ResourcesByName], Set[str] | None] = lambda *_: None,
    ) -> set[StreamSession]:
        """See these from now on; who has to be told something.

        `unrouted`: assignments to say after the routes. `moved` says of which names two tables may differ (None: of
        all).
        """
        before, self._resources, self.unrouted = self._resources, resources, unrouted
        self.publication, self.revision = publication, revision
        told: set[StreamSession] = set()
        for kind in PUSH_ORDER:
            old, new = before.get(kind, _NONE), resources.get(kind, _NONE)
            if old is not new:
                changed, removed = difference(old, new, changed_names(old, new))
                if changed or removed:
                    told |= self._tell(kind, changed, removed)
        return told


class GrpcSubscribers(Subscribers):
    """All gRPC clients: they name everything that they want, and only that is made."""

    def __init__(self, budget: NameBudget | None = None) -> None:
        """`budget` is shared by all audiences of a node."""
        super().__init__(MAX_GRPC_NAMES, budget)
        self.troubles = ""
        self._find: Callable[[ResourceKind, str], Resource | None] = lambda *_: None
        self._seen: dict[tuple[ResourceKind, str], Resource | None] = {}

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        seen = self._seen.get((kind, name))
        return seen if seen is not None else self._find(kind, name)

    def names(self, kind: ResourceKind) -> Iterable[str]:
        """None: there would be no end."""
        return ()

    def substitute(self, cluster: str, cause: str) -> Resource | None:
        """None: gRPC itself fails calls with its reason."""
        return None

    def subscribe(self, session: StreamSession, kind: ResourceKind, names: Iterable[str]) -> None:
        super().subscribe(session, kind, names)
        for name in names:
            if (kind, name) not in self._seen:
                if len(self._seen) >= MAX_GRPC_RESOURCES:
                    raise resource_exhausted("gRPC clients ask for too many names")
                self._seen[kind, name] = self._find(kind, name)

    def has_subscriber(self, name: str) -> bool:
        """Whether a client subscribes to anything of that service."""
        return any((kind, name) in self._by_name for kind in ResourceKind)

    def unsubscribe(self, session: StreamSession, kind: ResourceKind, names: Iterable[str]) -> None:
        super().unsubscribe(session, kind, names)
        for name in names:
            if (kind, name) not in self._by_name:
                self._seen.pop((kind, name), None)

    def publish(
        self, compiled: CompiledResources, changed_services: Set[str] | None, publication: int, revision: int
    ) -> set[StreamSession]:
        """See this from now on; who has to be told something.

        Only resources of the services `changed_services` may differ from what was seen before (None: all may).
        """
        self._find = find = compiled.grpc_resource
        self.publication, self.revision = publication, revision
        moved: dict[ResourceKind, tuple[list[str], dict[str, Resource]]] = {}
        for (kind, name), old in self._touched(changed_services):
            new = find(kind, name)
            if new is old:
                continue
            self._seen[kind, name] = new
            changed, removed = moved.setdefault(kind, ([], {}))
            if new is None:
                removed.update({name: old} if old is not None else {})
            elif old is None or old.version != new.version:
                changed.append(name)
        told: set[StreamSession] = set()
        for kind, (changed, removed) in moved.items():
            told |= self._tell(kind, changed, removed)
        return told

    def _touched(self, services: Set[str] | None) -> list[tuple[tuple[ResourceKind, str], Resource | None]]:
        if services is None:
            return list(self._seen.items())
        named = [(kind, name) for name in services for kind in PUSH_ORDER]  # What clients name are services.
        return [(each, self._seen[each]) for each in named if each in self._seen]


def difference(
    old: ResourcesByName, new: ResourcesByName, names: Set[str] | None = None
) -> tuple[list[str], dict[str, Resource]]:
    """The names of what is new or other than it was, and what is gone; the two may differ only in `names`, if given."""
    changed = []
    for name in new if names is None else [name for name in names if name in new]:
        before, resource = old.get(name), new[name]
        if before is not resource and (before is None or before.version != resource.version):
            changed.append(name)
    gone = old.keys() - new.keys() if names is None else {name for name in names if name in old and name not in new}
    return changed, {name: old[name] for name in gone}


def _troubles(clusters: Iterable[Resource]) -> str:
    """The troubles of clusters, each with the services that have it."""
    services: dict[str, dict[str, None]] = {}
    for each in clusters:
        if each.problem:
            services.setdefault(each.problem, {})[selectors.service_of_cluster(each.name)] = None
    return "; ".join(f"{_listed(list(names))}: {trouble}" for trouble, names in services.items())


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_LISTED_SERVICES
    return ", ".join(names[:MAX_LISTED_SERVICES]) + (f" and {more} more" if more > 0 else "")
