"""The encoder of the resources of one revision, for gateways and for gRPC clients without a proxy."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Final

from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Instance
from adsum.gateway.encoding import proxyless
from adsum.gateway.encoding.clusters import assignments, clusters, http_versions, tls
from adsum.gateway.encoding.clusters.assignments import AssignmentReader
from adsum.gateway.encoding.clusters.http_versions import (
    ALL_HTTP1,
    ALL_HTTP2,
    HttpVersion,
    TrafficSplit,
    cluster_name,
)
from adsum.gateway.encoding.clusters.tls import TlsPeers
from adsum.gateway.encoding.listeners import http_filters, listeners
from adsum.gateway.encoding.routes import route_configuration
from adsum.gateway.encoding.routes.route_configuration import EncodedRoutes
from adsum.gateway.intent.upstreams import LbPolicy, Upstream
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.resources import Resource, ResourceKind, encode_resource, encoded_resource
from adsum.gateway.resources.route_splits import RouteSplits
from adsum.gateway.resources.service_intents import ServiceIntents

MAX_OWN_DEFAULT_ROUTES: Final = 32
"""Services and routes up to which each service has default routes of its own.

A request is compared with these routes one after the other, and with each service that comes or goes, every gateway
receives the whole table again. Past the bound, one pattern finds any service by its name. The pattern costs a request
as much time as about 30 routes (measured: 7 µs of 60).
"""
MAX_CACHED_CLUSTERS: Final = 32_768
"""Encoded clusters in the cache: most changes of a service do not change its cluster."""

_PLAIN: Final = GatewayProfile(("127.0.0.1:0",))


def relevant_profile(kind: ResourceKind, profile: GatewayProfile) -> GatewayProfile:
    """Returns the profile reduced to the settings that resources of that kind depend on.

    Gateways that differ in the other settings share these resources.
    """
    if kind is ResourceKind.CLUSTER:
        return replace(_PLAIN, roots=profile.roots)
    if kind is ResourceKind.ASSIGNMENT:
        return replace(_PLAIN, zone=profile.zone)
    if kind is ResourceKind.FILTER:
        return _PLAIN
    if kind is ResourceKind.ROUTES:
        return replace(_PLAIN, default_routes=profile.default_routes, trusted_hops=min(1, profile.trusted_hops))
    return replace(profile, zone="", roots="")


class ResourceEncoder:
    """Encodes resources from a snapshot, the intent, and the traffic splits that follow from both.

    `addresses` has the IP of each host name that is an instance's address. Instances at other host names are left out.
    `encoded_routes` has the entries of declared routes that are encoded already.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        intents: ServiceIntents,
        addresses: Mapping[str, str],
        splits: RouteSplits,
        encoded_routes: EncodedRoutes,
    ) -> None:
        self.snapshot = snapshot
        self.intents = intents
        self.addresses = addresses
        self.splits = splits
        self.encoded_routes = encoded_routes

    @property
    def services(self) -> Set[str]:
        """The services that the catalog lists or the intent names."""
        return self.snapshot.services.keys() | self.intents.named_services

    def has_service(self, service: str) -> bool:
        """Returns whether the catalog lists the service or the intent names it."""
        return service in self.snapshot.services or service in self.intents.named_services

    def encode(
        self, kind: ResourceKind, profile: GatewayProfile, services: Set[str] | tuple[()]
    ) -> dict[str, Resource]:
        """Returns the resources of a kind by name. Only clusters and assignments depend on `services`."""
        if kind is ResourceKind.CLUSTER:
            resources = [item for service in sorted(services) for item in self._clusters(service, profile.roots)]
        elif kind is ResourceKind.ASSIGNMENT:
            resources = [item for service in sorted(services) for item in self._assignments(service, profile.zone)]
        elif kind is ResourceKind.ROUTES:
            resources = [self._routes(profile)]
        elif kind is ResourceKind.FILTER:
            limits = http_filters.rate_limit_buckets(self.intents.intent.routes)
            resources = [encode_resource(kind, limits.name, limits, self.snapshot.revision)]
        else:
            resources = _gateway_resources(kind, profile)
        return {resource.name: resource for resource in resources}

    def grpc_resource(self, kind: ResourceKind, service: str) -> Resource | None:
        """Returns the service's resource for gRPC clients without a proxy; None: they use no such kind."""
        revision = self.snapshot.revision
        if kind is ResourceKind.LISTENER:
            return encode_resource(kind, service, proxyless.listener(service), revision)
        if kind is ResourceKind.ROUTES:
            return encode_resource(kind, service, proxyless.routes(service), revision)
        if kind is ResourceKind.CLUSTER:
            message = proxyless.cluster(self.intents.upstream(service), self.intents.policy(service))
            return encode_resource(kind, service, message, revision)
        if kind is ResourceKind.ASSIGNMENT:
            listings = self.snapshot.service(service).listings.values()
            message = assignments.assignment(service, listings, self.addresses, reader=AssignmentReader.GRPC)
            return encode_resource(kind, service, message, revision)
        return None

    @cached_property
    def own_splits(self) -> Mapping[str, TrafficSplit]:
        """The splits of the services with default routes of their own. One pattern finds all other services.

        Services with instances of both versions and services with an upstream have routes of their own. With few
        services, all have: that costs a gateway less time for each request.
        """
        intents, splits = self.intents, self.splits
        own = {name: splits.splits.get(name, ALL_HTTP1) for name in splits.mixed | intents.intent.upstreams.keys()}
        routes = len(self.snapshot.services) + len(intents.named_services) + len(intents.intent.routes)
        if routes <= MAX_OWN_DEFAULT_ROUTES:
            for service in self.services - own.keys():
                own[service] = ALL_HTTP2 if HttpVersion.HTTP2 in self._by_version(service) else ALL_HTTP1
        return own

    def _clusters(self, service: str, roots: str) -> list[Resource]:
        intents, revision = self.intents, self.snapshot.revision
        upstream, policy = intents.upstream(service), intents.policy(service)
        resources = []
        by_version = self._by_version(service)
        if by_version.keys() == {HttpVersion.HTTP2}:
            resources.append(_http2_only_marker(service).with_revision(revision))
        for version, instances in by_version.items():
            peers = TlsPeers.from_instances(instances)
            for name in intents.selectors(service):
                cluster = _cluster(cluster_name(name, version), upstream, policy, version, peers, roots)
                resources.append(cluster.with_revision(revision))
        return resources

    def _assignments(self, service: str, zone: str) -> list[Resource]:
        listings, protocol = self.snapshot.service(service).listings.values(), self.intents.upstream(service).protocol
        resources = []
        for version in self._by_version(service):

            def has_version(instance: Instance, version: HttpVersion = version) -> bool:
                return http_versions.http_version(instance, protocol) is version

            for selector_name, selector in self.intents.selectors(service).items():
                name = cluster_name(selector_name, version)
                selected = [item for item in listings if selector.selects_all or selector.selects(item.instance)]
                message = assignments.assignment(name, selected, self.addresses, zone, is_member=has_version)
                resources.append(encode_resource(ResourceKind.ASSIGNMENT, name, message, self.snapshot.revision))
        return resources

    def _by_version(self, service: str) -> dict[HttpVersion, list[Instance]]:
        """Returns the instances of the service by the version of HTTP that their cluster uses."""
        protocol = self.intents.upstream(service).protocol
        instances = [listing.instance for listing in self.snapshot.service(service).listings.values()]
        by_version: dict[HttpVersion, list[Instance]] = {
            version: [] for version in http_versions.http_versions(instances, protocol)
        }
        for instance in instances:
            by_version[http_versions.http_version(instance, protocol)].append(instance)
        return by_version

    def _routes(self, profile: GatewayProfile) -> Resource:
        content = route_configuration.route_configuration(
            self.intents.intent.routes,
            self.own_splits,
            self.splits.splits,
            self.encoded_routes,
            default_routes=profile.default_routes,
            behind_proxy=profile.trusted_hops > 0,
        )
        return encoded_resource(
            ResourceKind.ROUTES, route_configuration.ROUTE_CONFIGURATION_NAME, content, self.snapshot.revision
        )


def _gateway_resources(kind: ResourceKind, profile: GatewayProfile) -> list[Resource]:
    """Returns the resources that depend on the profile alone: listeners and secrets."""
    if kind is ResourceKind.LISTENER:
        return [encode_resource(kind, address, listeners.listener(address, profile), 0) for address in profile.listen]
    if not profile.tls_certificate:
        return []
    return [encode_resource(kind, tls.SECRET_NAME, tls.certificate_secret(profile), 0)]


@lru_cache(maxsize=MAX_CACHED_CLUSTERS)
def _cluster(
    name: str, upstream: Upstream, policy: LbPolicy, version: HttpVersion, peers: TlsPeers, roots: str
) -> Resource:
    message = clusters.cluster(name, upstream, policy, version, peers, roots)
    problem = tls.verification_problem(upstream.tls, peers, roots)
    return encode_resource(ResourceKind.CLUSTER, name, message, 0, problem, has_tls=bool(peers))


@lru_cache(maxsize=MAX_CACHED_CLUSTERS)
def _http2_only_marker(service: str) -> Resource:
    name = http_versions.http2_only_marker(service)
    return encode_resource(ResourceKind.CLUSTER, name, clusters.substitute_cluster(name, service, ""), 0)
