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
from adsum.gateway.encoding.clusters.assignments import AssignmentReader
from adsum.gateway.encoding.clusters.http_versions import (
    ALL_HTTP1,
    ALL_HTTP2,
    HttpVersion,
    TrafficSplit,
    TrafficSplits,
    cluster_name,
)
from adsum.gateway.encoding.clusters.tls import TlsPeers
from adsum.gateway.encoding.listeners import http_filters, listeners
from adsum.gateway.encoding.routes import route_configuration
from adsum.gateway.encoding.routes.route_configuration import EncodedRoutes
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.upstreams import LbPolicy, Upstream
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources import address_changes, resource_tables
from adsum.gateway.resources.resource_tables import ResourceTable, TableChange
from adsum.gateway.resources.resources import Resource, ResourceKind, encode_resource, encoded_resource
from adsum.gateway.resources.service_intents import NO_SERVICE_INTENTS, ServiceIntents

MAX_CACHED_TABLES: Final = 256
"""Tables kept for gateways of different shape; past it, the one kept longest is compiled anew when asked for."""
MAX_OWN_DEFAULT_ROUTES: Final = 32
"""Services and routes: of so few, each service has default routes of its own. A request meets them one after the other,
and each that comes or goes has the whole table told anew; to find any service by its name costs a request as much as
some thirty of them (measured: 7 µs of 60)."""
MAX_CACHED_CLUSTERS: Final = 32_768
"""Clusters kept encoded: most changes of a service leave its cluster as it is."""

_Variant = tuple[ResourceKind, GatewayProfile]
"""A kind, and a shape with no more than its resources depend on."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_PLAIN: Final = GatewayProfile(("127.0.0.1:0",))
_NO_ADDRESSES: Final[Mapping[str, str]] = MappingProxyType({})


class _Shared(NamedTuple):
    """What routes depend on beside the intent: how requests are shared, and between clusters of which services.

    `splits` has those of the services that the intent names, and of the `mixed`: they speak both versions of HTTP, and
    so have two clusters.
    """

    splits: TrafficSplits
    mixed: Set[str]


class CompiledResources:
    """What is told at one revision; it never changes. What nobody asked for yet is compiled when it is asked for."""

    def __init__(
        self,
        snapshot: Snapshot,
        plan: ServiceIntents,
        addresses: Mapping[str, str],
        shared: _Shared,
        encoded: EncodedRoutes,
    ) -> None:
        self.revision = snapshot.revision
        self.unrouted: Set[str] = frozenset()
        """The assignments in which nobody takes requests, among those that share a route's requests with others."""
        self._snapshot = snapshot
        self._plan = plan
        self._addresses = addresses
        self._shared = shared
        self._encoded = encoded
        self._tables: dict[_Variant, ResourceTable] = {}
        self._shapes: dict[GatewayProfile, Mapping[ResourceKind, ResourceTable]] = {}
        self._calls: dict[tuple[ResourceKind, str], Resource] = {}
        self._moves: dict[int, TableChange] = {}

    def is_compiled(self, profile: GatewayProfile) -> bool:
        """Whether the resources of such a gateway are made already."""
        return profile in self._shapes or all((kind, _reduced(kind, profile)) in self._tables for kind in ResourceKind)

    def gateway_resources(self, profile: GatewayProfile) -> Mapping[ResourceKind, ResourceTable]:
        """All resources of a gateway of that shape."""
        known = self._shapes.get(profile)
        if known is None:
            known = MappingProxyType({kind: self._table(kind, profile) for kind in ResourceKind})
            _keep(self._shapes, profile, known)
        return known

    def changed_names(self, before: ResourceTable, after: ResourceTable) -> Set[str] | None:
        """The names of which the two tables may differ, `after` being one of these; None: all of them."""
        move = self._moves.get(id(after))
        return move.names if move is not None and move.before is before and move.after is after else None

    def grpc_resource(self, kind: ResourceKind, name: str) -> Resource | None:
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

    def advance(self, snapshot: Snapshot, intent: Intent, addresses: Mapping[str, str]) -> CompiledResources:
        """What is told at a later revision.

        `addresses`: the IP of each host name that instances have for an address. Envoy knows no names: an instance
        whose name is not in there is left out.
        """
        plan = self._plan if intent is self._plan.intent else ServiceIntents(intent)
        touched = snapshots.changed_services(self._snapshot, snapshot) | plan.changed_services(self._plan)
        touched |= address_changes.readdressed_services(snapshot, self._addresses, addresses)
        shared = self._followed_shares(snapshot, plan, addresses, touched)
        encoded = self._encoded if plan is self._plan else self._encoded.retain(intent.routes)
        after = CompiledResources(snapshot, plan, addresses, shared, encoded)
        after.unrouted = self.unrouted if shared is self._shared else http_versions.unrouted_clusters(shared.splits)
        rerouted = plan is not self._plan or shared is not self._shared or self._apart != after._apart
        for variant, table in list(self._tables.items()):
            after._tables[variant] = after._followed(variant, table, self._plan, touched, rerouted=rerouted)
        after._calls = {each: resource for each, resource in list(self._calls.items()) if each[1] not in touched}
        return after

    def _followed_shares(
        self, snapshot: Snapshot, plan: ServiceIntents, addresses: Mapping[str, str], touched: Set[str]
    ) -> _Shared:
        """What routes depend on after those services changed; the same if nothing in it did."""
        known = self._shared.splits
        before = {name: known[name] for service in touched for name in self._plan.selectors(service) if name in known}
        now: dict[str, TrafficSplit] = {}
        mixed = set[str]()
        for service in touched:
            listings = snapshot.service(service).listings.values()
            spoken = http_versions.http_versions((each.instance for each in listings), plan.upstream(service).protocol)
            if len(spoken) > 1:
                mixed.add(service)
            elif service not in plan.named_services:
                continue
            for name, selector in plan.selectors(service).items():
                if spoken == [HttpVersion.HTTP1] and name not in plan.shared_selectors:
                    continue
                chosen = [each for each in listings if selector.selects_all or selector.selects(each.instance)]
                split = http_versions.traffic_split(spoken, chosen, addresses)
                if name in plan.shared_selectors and http_versions.is_empty(chosen, addresses):
                    split = replace(split, is_empty=True)
                if split != ALL_HTTP1 or len(spoken) > 1:  # What nobody leads to is told by it, too.
                    now[name] = split
        if now == before and mixed == self._shared.mixed & touched:
            return self._shared
        splits = {**{name: known[name] for name in known.keys() - before.keys()}, **now}
        return _Shared(MappingProxyType(splits), self._shared.mixed - touched | mixed)

    def _knows(self, service: str) -> bool:
        return service in self._snapshot.services or service in self._plan.named_services

    def _table(self, kind: ResourceKind, shape: GatewayProfile) -> ResourceTable:
        variant = (kind, _reduced(kind, shape))
        known = self._tables.get(variant)
        if known is None:
            services = self._snapshot.services.keys() | self._plan.named_services
            known = MappingProxyType(self._made(variant, services))
            _keep(self._tables, variant, known)
        return known

    def _followed(
        self, variant: _Variant, table: ResourceTable, before: ServiceIntents, touched: Set[str], *, rerouted: bool
    ) -> ResourceTable:
        """The table after those services changed; the same one if nothing in it did."""
        kind = variant[0]
        if kind in (ResourceKind.ROUTES, ResourceKind.FILTER):
            anew = rerouted if kind is ResourceKind.ROUTES else self._plan is not before
            return MappingProxyType(resource_tables.share_unchanged(self._made(variant, ()), table)) if anew else table
        if kind in (ResourceKind.LISTENER, ResourceKind.SECRET) or not touched:
            return table
        left = {
            cluster_name(name, version)
            for service in touched
            for name in before.selectors(service)
            for version in HttpVersion
        }
        left |= {http_versions.http2_only_marker(service) for service in touched}
        made = self._made(variant, {name for name in touched if self._knows(name)})
        move = resource_tables.change_table(table, left, made)
        self._moves[id(move.after)] = move
        return move.after

    def _made(self, variant: _Variant, services: Set[str] | tuple[()]) -> dict[str, Resource]:
        kind, shape = variant
        if kind is ResourceKind.CLUSTER:
            made = [each for service in sorted(services) for each in self._clusters(service, shape.roots)]
        elif kind is ResourceKind.ASSIGNMENT:
            made = [each for service in sorted(services) for each in self._assignments(service, shape.zone)]
        elif kind is ResourceKind.ROUTES:
            made = [self._routes(shape)]
        elif kind is ResourceKind.FILTER:
            limits = http_filters.rate_limit_buckets(self._plan.intent.routes)
            made = [encode_resource(kind, limits.name, limits, self.revision)]
        else:
            made = _own(kind, shape)
        return {resource.name: resource for resource in made}

    def _clusters(self, service: str, roots: str) -> list[Resource]:
        plan = self._plan
        upstream, policy = plan.upstream(service), plan.policy(service)
        made = []
        spoken = self._by_version(service)
        if spoken.keys() == {HttpVersion.HTTP2}:
            made.append(_sole(service).with_revision(self.revision))
        for version, instances in spoken.items():
            peers = TlsPeers.from_instances(instances)
            for name in plan.selectors(service):
                cluster = _cluster(cluster_name(name, version), upstream, policy, version, peers, roots)
                made.append(cluster.with_revision(self.revision))
        return made

    def _assignments(self, service: str, zone: str) -> list[Resource]:
        listings, protocol = self._snapshot.service(service).listings.values(), self._plan.upstream(service).protocol
        made = []
        for version in self._by_version(service):

            def speaks(instance: Instance, version: HttpVersion = version) -> bool:
                return http_versions.http_version(instance, protocol) is version

            for selected, selector in self._plan.selectors(service).items():
                name = cluster_name(selected, version)
                chosen = [each for each in listings if selector.selects_all or selector.selects(each.instance)]
                message = assignments.assignment(name, chosen, self._addresses, zone, is_member=speaks)
                made.append(encode_resource(ResourceKind.ASSIGNMENT, name, message, self.revision))
        return made

    def _by_version(self, service: str) -> dict[HttpVersion, list[Instance]]:
        """The instances of each cluster that the service has."""
        protocol = self._plan.upstream(service).protocol
        instances = [each.instance for each in self._snapshot.service(service).listings.values()]
        spoken: dict[HttpVersion, list[Instance]] = {
            each: [] for each in http_versions.http_versions(instances, protocol)
        }
        for instance in instances:
            spoken[http_versions.http_version(instance, protocol)].append(instance)
        return spoken

    def _routes(self, shape: GatewayProfile) -> Resource:
        content = route_configuration.route_configuration(
            self._plan.intent.routes,
            self._apart,
            self._shared.splits,
            self._encoded,
            default_routes=shape.default_routes,
            behind_proxy=shape.trusted_hops > 0,
        )
        return encoded_resource(
            ResourceKind.ROUTES, route_configuration.ROUTE_CONFIGURATION_NAME, content, self.revision
        )

    @cached_property
    def _apart(self) -> Mapping[str, TrafficSplit]:
        """How requests are shared for the services with default routes of their own, beside those of all services.

        Requests for one of a few services cost a gateway less that way.
        """
        plan, shared = self._plan, self._shared
        apart = {each: shared.splits.get(each, ALL_HTTP1) for each in shared.mixed | plan.intent.upstreams.keys()}
        if len(self._snapshot.services) + len(plan.named_services) + len(plan.intent.routes) <= MAX_OWN_DEFAULT_ROUTES:
            for each in (self._snapshot.services.keys() | plan.named_services) - apart.keys():
                apart[each] = ALL_HTTP2 if HttpVersion.HTTP2 in self._by_version(each) else ALL_HTTP1
        return apart

    def _call(self, kind: ResourceKind, name: str) -> Resource | None:
        if kind is ResourceKind.LISTENER:
            return encode_resource(kind, name, proxyless.listener(name), self.revision)
        if kind is ResourceKind.ROUTES:
            return encode_resource(kind, name, proxyless.routes(name), self.revision)
        if kind is ResourceKind.CLUSTER:
            return encode_resource(
                kind, name, proxyless.cluster(self._plan.upstream(name), self._plan.policy(name)), self.revision
            )
        if kind is ResourceKind.ASSIGNMENT:
            listings = self._snapshot.service(name).listings.values()
            message = assignments.assignment(name, listings, self._addresses, reader=AssignmentReader.GRPC)
            return encode_resource(kind, name, message, self.revision)
        return None


def _reduced(kind: ResourceKind, shape: GatewayProfile) -> GatewayProfile:
    """The shape without what the resources of a kind do not depend on: gateways that differ in it share them."""
    if kind is ResourceKind.CLUSTER:
        return replace(_PLAIN, roots=shape.roots)
    if kind is ResourceKind.ASSIGNMENT:
        return replace(_PLAIN, zone=shape.zone)
    if kind is ResourceKind.FILTER:
        return _PLAIN
    if kind is ResourceKind.ROUTES:
        return replace(_PLAIN, default_routes=shape.default_routes, trusted_hops=min(1, shape.trusted_hops))
    return replace(shape, zone="", roots="")


def _own(kind: ResourceKind, shape: GatewayProfile) -> list[Resource]:
    """What depends on nothing but the shape."""
    if kind is ResourceKind.LISTENER:
        return [encode_resource(kind, address, listeners.listener(address, shape), 0) for address in shape.listen]
    return [encode_resource(kind, tls.SECRET_NAME, tls.certificate_secret(shape), 0)] if shape.tls_certificate else []


@lru_cache(maxsize=MAX_CACHED_CLUSTERS)
def _cluster(
    name: str, upstream: Upstream, policy: LbPolicy, version: HttpVersion, peers: TlsPeers, roots: str
) -> Resource:
    message = clusters.cluster(name, upstream, policy, version, peers, roots)
    return encode_resource(
        ResourceKind.CLUSTER,
        name,
        message,
        0,
        tls.verification_problem(upstream.tls, peers, roots),
        has_tls=bool(peers),
    )


@lru_cache(maxsize=MAX_CACHED_CLUSTERS)
def _sole(service: str) -> Resource:
    name = http_versions.http2_only_marker(service)
    return encode_resource(ResourceKind.CLUSTER, name, clusters.substitute_cluster(name, service, ""), 0)


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    while len(kept) >= MAX_CACHED_TABLES:
        del kept[next(iter(kept))]
    kept[key] = value


NO_RESOURCES: Final = CompiledResources(
    snapshots.EMPTY_SNAPSHOT,
    NO_SERVICE_INTENTS,
    _NO_ADDRESSES,
    _Shared(MappingProxyType({}), frozenset()),
    EncodedRoutes(),
)
"""Before anything was loaded."""
