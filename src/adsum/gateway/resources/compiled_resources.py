"""Everything that gateways and gRPC clients are told, compiled from the catalog and the intent.

A change costs what it touches: the resources of one service, and the table that holds them. What did not change is
shared with what was compiled before, down to the table, so that it can be told by identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from adsum.core import validation
from adsum.core.catalog import snapshots
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import Invalid
from adsum.core.model import Instance
from adsum.gateway.encoding import proxyless
from adsum.gateway.encoding.clusters import assignments, clusters, http_versions, tls
from adsum.gateway.encoding.clusters.assignments import Reader
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, ALL_HTTP2, Split, Splits, Version, cluster_name
from adsum.gateway.encoding.clusters.tls import Peers
from adsum.gateway.encoding.listeners import http_filters, listeners
from adsum.gateway.encoding.routes import route_configuration
from adsum.gateway.encoding.routes.route_configuration import Encoded
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.upstreams import Policy, Upstream
from adsum.gateway.profile import Shape
from adsum.gateway.resources import address_changes, resource_tables
from adsum.gateway.resources.resource_tables import Move, Table
from adsum.gateway.resources.resources import Kind, Resource, pack, packed
from adsum.gateway.resources.service_intents import NO_PLAN, Plan

MAX_TABLES: Final = 256
"""Tables kept for gateways of different shape; past it, the one kept longest is compiled anew when asked for."""
FEW: Final = 32
"""Services and routes: of so few, each service has default routes of its own. A request meets them one after the other,
and each that comes or goes has the whole table told anew; to find any service by its name costs a request as much as
some thirty of them (measured: 7 µs of 60)."""
MAX_CLUSTERS: Final = 32_768
"""Clusters kept encoded: most changes of a service leave its cluster as it is."""

_Variant = tuple[Kind, Shape]
"""A kind, and a shape with no more than its resources depend on."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_PLAIN: Final = Shape(("127.0.0.1:0",))
_NO_ADDRESSES: Final[Mapping[str, str]] = MappingProxyType({})


class _Shared(NamedTuple):
    """What routes depend on beside the intent: how requests are shared, and between clusters of which services.

    `splits` has those of the services that the intent names, and of the `mixed`: they speak both versions of HTTP, and
    so have two clusters.
    """

    splits: Splits
    mixed: Set[str]


class Compiled:
    """What is told at one revision; it never changes. What nobody asked for yet is compiled when it is asked for."""

    def __init__(
        self, snapshot: Snapshot, plan: Plan, addresses: Mapping[str, str], shared: _Shared, encoded: Encoded
    ) -> None:
        self.revision = snapshot.revision
        self.vacated: Set[str] = frozenset()
        """The assignments in which nobody takes requests, among those that share a route's requests with others."""
        self._snapshot = snapshot
        self._plan = plan
        self._addresses = addresses
        self._shared = shared
        self._encoded = encoded
        self._tables: dict[_Variant, Table] = {}
        self._shapes: dict[Shape, Mapping[Kind, Table]] = {}
        self._calls: dict[tuple[Kind, str], Resource] = {}
        self._moves: dict[int, Move] = {}

    def knows(self, shape: Shape) -> bool:
        """Whether the resources of such a gateway are made already."""
        return shape in self._shapes or all((kind, _reduced(kind, shape)) in self._tables for kind in Kind)

    def envoy(self, shape: Shape) -> Mapping[Kind, Table]:
        """All resources of a gateway of that shape."""
        known = self._shapes.get(shape)
        if known is None:
            known = MappingProxyType({kind: self._table(kind, shape) for kind in Kind})
            _keep(self._shapes, shape, known)
        return known

    def moved(self, before: Table, after: Table) -> Set[str] | None:
        """The names of which the two tables may differ, `after` being one of these; None: all of them."""
        move = self._moves.get(id(after))
        return move.names if move is not None and move.before is before and move.after is after else None

    def grpc(self, kind: Kind, name: str) -> Resource | None:
        """A resource of that name for a gRPC client without a proxy; None: there can't be such a service."""
        known = self._calls.get((kind, name))
        if known is not None:
            return known
        try:
            validation.service_name("name", name)
        except Invalid:
            return None
        resource = self._call(kind, name)
        if resource is not None and name in self._snapshot.services:
            self._calls[kind, name] = resource  # Only what is known is kept: anybody can ask for any name.
        return resource

    def follow(self, snapshot: Snapshot, intent: Intent, addresses: Mapping[str, str]) -> Compiled:
        """What is told at a later revision.

        `addresses`: the IP of each host name that instances have for an address. Envoy knows no names: an instance
        whose name is not in there is left out.
        """
        plan = self._plan if intent is self._plan.intent else Plan(intent)
        touched = snapshots.changed(self._snapshot, snapshot) | plan.differences(self._plan)
        touched |= address_changes.resolved(snapshot, self._addresses, addresses)
        shared = self._followed_shares(snapshot, plan, addresses, touched)
        encoded = self._encoded if plan is self._plan else self._encoded.kept(intent.routes)
        after = Compiled(snapshot, plan, addresses, shared, encoded)
        after.vacated = self.vacated if shared is self._shared else http_versions.vacated(shared.splits)
        rerouted = plan is not self._plan or shared is not self._shared or self._apart != after._apart
        for variant, table in list(self._tables.items()):
            after._tables[variant] = after._followed(variant, table, self._plan, touched, rerouted=rerouted)
        after._calls = {each: resource for each, resource in list(self._calls.items()) if each[1] not in touched}
        return after

    def _followed_shares(
        self, snapshot: Snapshot, plan: Plan, addresses: Mapping[str, str], touched: Set[str]
    ) -> _Shared:
        """What routes depend on after those services changed; the same if nothing in it did."""
        known = self._shared.splits
        before = {name: known[name] for service in touched for name in self._plan.selectors(service) if name in known}
        now: dict[str, Split] = {}
        mixed = set[str]()
        for service in touched:
            listings = snapshot.service(service).listings.values()
            spoken = http_versions.versions((each.instance for each in listings), plan.upstream(service).protocol)
            if len(spoken) > 1:
                mixed.add(service)
            elif service not in plan.services:
                continue
            for name, selector in plan.selectors(service).items():
                if spoken == [Version.HTTP1] and name not in plan.sharing:
                    continue
                chosen = [each for each in listings if selector.whole or selector.chooses(each.instance)]
                split = http_versions.split(spoken, chosen, addresses)
                if name in plan.sharing and http_versions.is_empty(chosen, addresses):
                    split = replace(split, empty=True)
                if split != ALL_HTTP1 or len(spoken) > 1:  # What nobody leads to is told by it, too.
                    now[name] = split
        if now == before and mixed == self._shared.mixed & touched:
            return self._shared
        splits = {**{name: known[name] for name in known.keys() - before.keys()}, **now}
        return _Shared(MappingProxyType(splits), self._shared.mixed - touched | mixed)

    def _knows(self, service: str) -> bool:
        return service in self._snapshot.services or service in self._plan.services

    def _table(self, kind: Kind, shape: Shape) -> Table:
        variant = (kind, _reduced(kind, shape))
        known = self._tables.get(variant)
        if known is None:
            services = self._snapshot.services.keys() | self._plan.services
            known = MappingProxyType(self._made(variant, services))
            _keep(self._tables, variant, known)
        return known

    def _followed(self, variant: _Variant, table: Table, before: Plan, touched: Set[str], *, rerouted: bool) -> Table:
        """The table after those services changed; the same one if nothing in it did."""
        kind = variant[0]
        if kind in (Kind.ROUTES, Kind.FILTER):
            anew = rerouted if kind is Kind.ROUTES else self._plan is not before
            return MappingProxyType(resource_tables.settled(self._made(variant, ()), table)) if anew else table
        if kind in (Kind.LISTENER, Kind.SECRET) or not touched:
            return table
        left = {
            cluster_name(name, version)
            for service in touched
            for name in before.selectors(service)
            for version in Version
        }
        left |= {http_versions.sole(service) for service in touched}
        made = self._made(variant, {name for name in touched if self._knows(name)})
        move = resource_tables.moved(table, left, made)
        self._moves[id(move.after)] = move
        return move.after

    def _made(self, variant: _Variant, services: Set[str] | tuple[()]) -> dict[str, Resource]:
        kind, shape = variant
        if kind is Kind.CLUSTER:
            made = [each for service in sorted(services) for each in self._clusters(service, shape.roots)]
        elif kind is Kind.ASSIGNMENT:
            made = [each for service in sorted(services) for each in self._assignments(service, shape.zone)]
        elif kind is Kind.ROUTES:
            made = [self._routes(shape)]
        elif kind is Kind.FILTER:
            limits = http_filters.rate_limits(self._plan.intent.routes)
            made = [pack(kind, limits.name, limits, self.revision)]
        else:
            made = _own(kind, shape)
        return {resource.name: resource for resource in made}

    def _clusters(self, service: str, roots: str) -> list[Resource]:
        plan = self._plan
        upstream, policy = plan.upstream(service), plan.policy(service)
        made = []
        spoken = self._by_version(service)
        if spoken.keys() == {Version.HTTP2}:
            made.append(_sole(service).at(self.revision))
        for version, instances in spoken.items():
            peers = Peers.of(instances)
            for name in plan.selectors(service):
                cluster = _cluster(cluster_name(name, version), upstream, policy, version, peers, roots)
                made.append(cluster.at(self.revision))
        return made

    def _assignments(self, service: str, zone: str) -> list[Resource]:
        listings, protocol = self._snapshot.service(service).listings.values(), self._plan.upstream(service).protocol
        made = []
        for version in self._by_version(service):

            def speaks(instance: Instance, version: Version = version) -> bool:
                return http_versions.version(instance, protocol) is version

            for selected, selector in self._plan.selectors(service).items():
                name = cluster_name(selected, version)
                chosen = [each for each in listings if selector.whole or selector.chooses(each.instance)]
                message = assignments.assignment(name, chosen, self._addresses, zone, belongs=speaks)
                made.append(pack(Kind.ASSIGNMENT, name, message, self.revision))
        return made

    def _by_version(self, service: str) -> dict[Version, list[Instance]]:
        """The instances of each cluster that the service has."""
        protocol = self._plan.upstream(service).protocol
        instances = [each.instance for each in self._snapshot.service(service).listings.values()]
        spoken: dict[Version, list[Instance]] = {each: [] for each in http_versions.versions(instances, protocol)}
        for instance in instances:
            spoken[http_versions.version(instance, protocol)].append(instance)
        return spoken

    def _routes(self, shape: Shape) -> Resource:
        content = route_configuration.route_configuration(
            self._plan.intent.routes,
            self._apart,
            self._shared.splits,
            self._encoded,
            default_routes=shape.default_routes,
            behind_proxy=shape.trusted_hops > 0,
        )
        return packed(Kind.ROUTES, route_configuration.NAME, content, self.revision)

    @cached_property
    def _apart(self) -> Mapping[str, Split]:
        """How requests are shared for the services with default routes of their own, beside those of all services.

        Requests for one of a few services cost a gateway less that way.
        """
        plan, shared = self._plan, self._shared
        apart = {each: shared.splits.get(each, ALL_HTTP1) for each in shared.mixed | plan.intent.upstreams.keys()}
        if len(self._snapshot.services) + len(plan.services) + len(plan.intent.routes) <= FEW:
            for each in (self._snapshot.services.keys() | plan.services) - apart.keys():
                apart[each] = ALL_HTTP2 if Version.HTTP2 in self._by_version(each) else ALL_HTTP1
        return apart

    def _call(self, kind: Kind, name: str) -> Resource | None:
        if kind is Kind.LISTENER:
            return pack(kind, name, proxyless.listener(name), self.revision)
        if kind is Kind.ROUTES:
            return pack(kind, name, proxyless.routes(name), self.revision)
        if kind is Kind.CLUSTER:
            return pack(
                kind, name, proxyless.cluster(self._plan.upstream(name), self._plan.policy(name)), self.revision
            )
        if kind is Kind.ASSIGNMENT:
            listings = self._snapshot.service(name).listings.values()
            message = assignments.assignment(name, listings, self._addresses, reader=Reader.GRPC)
            return pack(kind, name, message, self.revision)
        return None


def _reduced(kind: Kind, shape: Shape) -> Shape:
    """The shape without what the resources of a kind do not depend on: gateways that differ in it share them."""
    if kind is Kind.CLUSTER:
        return replace(_PLAIN, roots=shape.roots)
    if kind is Kind.ASSIGNMENT:
        return replace(_PLAIN, zone=shape.zone)
    if kind is Kind.FILTER:
        return _PLAIN
    if kind is Kind.ROUTES:
        return replace(_PLAIN, default_routes=shape.default_routes, trusted_hops=min(1, shape.trusted_hops))
    return replace(shape, zone="", roots="")


def _own(kind: Kind, shape: Shape) -> list[Resource]:
    """What depends on nothing but the shape."""
    if kind is Kind.LISTENER:
        return [pack(kind, address, listeners.listener(address, shape), 0) for address in shape.listen]
    return [pack(kind, tls.SECRET_NAME, tls.certificate(shape), 0)] if shape.tls_certificate else []


@lru_cache(maxsize=MAX_CLUSTERS)
def _cluster(name: str, upstream: Upstream, policy: Policy, version: Version, peers: Peers, roots: str) -> Resource:
    message = clusters.cluster(name, upstream, policy, version, peers, roots)
    return pack(Kind.CLUSTER, name, message, 0, tls.trouble(upstream.tls, peers, roots), encrypted=bool(peers))


@lru_cache(maxsize=MAX_CLUSTERS)
def _sole(service: str) -> Resource:
    name = http_versions.sole(service)
    return pack(Kind.CLUSTER, name, clusters.substitute(name, service, ""), 0)


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    while len(kept) >= MAX_TABLES:
        del kept[next(iter(kept))]
    kept[key] = value


NOTHING: Final = Compiled(
    snapshots.EMPTY, NO_PLAN, _NO_ADDRESSES, _Shared(MappingProxyType({}), frozenset()), Encoded()
)
"""Before anything was loaded."""
