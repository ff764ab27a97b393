"""All resources of gateways and gRPC clients at one revision, compiled from the catalog and the intent.

A change costs the encoding of the resources of one service, and a copy of the table that has them.
Unchanged resources and tables are the same objects as at the revision before, so that they are recognized by identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Final, TypeVar

from adsum.core import validation
from adsum.core.catalog import snapshots
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import Invalid
from adsum.gateway.encoding.clusters import http_versions
from adsum.gateway.encoding.clusters.http_versions import HttpVersion, cluster_name
from adsum.gateway.encoding.routes.route_configuration import EncodedRoutes
from adsum.gateway.intent.intent import Intent
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources import address_changes, resource_tables
from adsum.gateway.resources.resource_encoder import ResourceEncoder, relevant_profile
from adsum.gateway.resources.resource_tables import ResourceTable, TableChange
from adsum.gateway.resources.resources import Resource, ResourceKind
from adsum.gateway.resources.route_splits import NO_SPLITS
from adsum.gateway.resources.service_intents import NO_SERVICE_INTENTS, ServiceIntents

MAX_CACHED_TABLES: Final = 256
"""Tables kept for gateways with different profiles. Past it, the oldest is dropped and compiled again on demand."""

_Variant = tuple[ResourceKind, GatewayProfile]
"""A kind, and a profile reduced to the settings that its resources depend on."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class CompiledResources:
    """The resources of one revision. They never change; tables are compiled on first use.

    `unrouted`: the names of the assignments to which no route leads now, because none of their instances takes
    requests. Only targets that share a route's requests with others, and services with instances of both versions of
    HTTP, can have such assignments.
    """

    def __init__(self, encoder: ResourceEncoder, unrouted: Set[str] = frozenset()) -> None:
        self.revision = encoder.snapshot.revision
        self.unrouted = unrouted
        self._encoder = encoder
        self._tables: dict[_Variant, ResourceTable] = {}
        self._by_profile: dict[GatewayProfile, Mapping[ResourceKind, ResourceTable]] = {}
        self._grpc: dict[tuple[ResourceKind, str], Resource] = {}
        self._changes: dict[int, TableChange] = {}

    def is_compiled(self, profile: GatewayProfile) -> bool:
        """Returns whether all tables of gateways with that profile are compiled already."""
        return profile in self._by_profile or all(
            (kind, relevant_profile(kind, profile)) in self._tables for kind in ResourceKind
        )

    def gateway_resources(self, profile: GatewayProfile) -> Mapping[ResourceKind, ResourceTable]:
        """Returns all resources of gateways with that profile."""
        tables = self._by_profile.get(profile)
        if tables is None:
            tables = MappingProxyType({kind: self._table(kind, profile) for kind in ResourceKind})
            _store(self._by_profile, profile, tables)
        return tables

    def changed_names(self, before: ResourceTable, after: ResourceTable) -> Set[str] | None:
        """Returns the names that may differ between two tables, where `after` is a table of these resources.

        None: any name may differ.
        """
        change = self._changes.get(id(after))
        return change.names if change is not None and change.before is before and change.after is after else None

    def grpc_resource(self, kind: ResourceKind, name: str) -> Resource | None:
        """Returns the resource for a gRPC client without a proxy; None: no service can have that name or that kind."""
        cached = self._grpc.get((kind, name))
        if cached is not None:
            return cached
        try:
            validation.service_name("name", name)
        except Invalid:
            return None
        resource = self._encoder.grpc_resource(kind, name)
        if resource is not None and name in self._encoder.snapshot.services:
            self._grpc[kind, name] = resource  # Only known services are cached: clients can request any name.
        return resource

    def advance(self, snapshot: Snapshot, intent: Intent, addresses: Mapping[str, str]) -> CompiledResources:
        """Returns the resources of a later revision.

        `addresses` has the IP of each host name that is an instance's address. Envoy resolves no names, so an instance
        whose host name is missing there is left out.
        """
        old = self._encoder
        intents = old.intents if intent is old.intents.intent else ServiceIntents(intent)
        touched = snapshots.changed_services(old.snapshot, snapshot) | intents.changed_services(old.intents)
        touched |= address_changes.readdressed_services(snapshot, old.addresses, addresses)
        splits = old.splits.advance(snapshot, old.intents, intents, addresses, touched)
        encoded_routes = old.encoded_routes if intents is old.intents else old.encoded_routes.retain(intent.routes)
        new = ResourceEncoder(snapshot, intents, addresses, splits, encoded_routes)
        unrouted = self.unrouted if splits is old.splits else http_versions.unrouted_clusters(splits.splits)
        after = CompiledResources(new, unrouted)
        rerouted = intents is not old.intents or splits is not old.splits or old.own_splits != new.own_splits
        for variant, table in list(self._tables.items()):
            after._tables[variant] = after._advance_table(variant, table, old.intents, touched, rerouted=rerouted)
        after._grpc = {key: resource for key, resource in list(self._grpc.items()) if key[1] not in touched}
        return after

    def _table(self, kind: ResourceKind, profile: GatewayProfile) -> ResourceTable:
        variant = (kind, relevant_profile(kind, profile))
        table = self._tables.get(variant)
        if table is None:
            table = MappingProxyType(self._encoder.encode(*variant, self._encoder.services))
            _store(self._tables, variant, table)
        return table

    def _advance_table(
        self,
        variant: _Variant,
        table: ResourceTable,
        old_intents: ServiceIntents,
        touched: Set[str],
        *,
        rerouted: bool,
    ) -> ResourceTable:
        """Returns the table after the `touched` services changed; the same object if no resource in it changed."""
        kind, encoder = variant[0], self._encoder
        if kind in (ResourceKind.ROUTES, ResourceKind.FILTER):
            changed = rerouted if kind is ResourceKind.ROUTES else encoder.intents is not old_intents
            if not changed:
                return table
            return MappingProxyType(resource_tables.share_unchanged(encoder.encode(*variant, ()), table))
        if kind in (ResourceKind.LISTENER, ResourceKind.SECRET) or not touched:
            return table
        removed = {
            cluster_name(name, version)
            for service in touched
            for name in old_intents.selectors(service)
            for version in HttpVersion
        }
        removed |= {http_versions.http2_only_marker(service) for service in touched}
        added = encoder.encode(*variant, {service for service in touched if encoder.has_service(service)})
        change = resource_tables.change_table(table, removed, added)
        self._changes[id(change.after)] = change
        return change.after


def _store(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Adds an entry to the cache and drops the oldest ones past the bound."""
    while len(cache) >= MAX_CACHED_TABLES:
        del cache[next(iter(cache))]
    cache[key] = value


NO_RESOURCES: Final = CompiledResources(
    ResourceEncoder(snapshots.EMPTY_SNAPSHOT, NO_SERVICE_INTENTS, MappingProxyType({}), NO_SPLITS, EncodedRoutes())
)
"""The resources before a catalog is loaded."""
