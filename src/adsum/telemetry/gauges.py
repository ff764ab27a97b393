"""Prometheus gauges of a registry node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from adsum.core.catalog.documents import INTENT_KINDS
from adsum.keeper import Keeper
from adsum.ports import Sharding
from adsum.registry import Registry

AddGauge = Callable[[str, str, Callable[[], float]], None]
"""Adds a gauge: its name, its description, and a function that returns its value."""


class ConnectionCounts(Protocol):
    """The counts of the HTTP server that gauges show."""

    @property
    def connections(self) -> int: ...

    @property
    def max_connections(self) -> int: ...

    def unsent_bytes(self) -> int: ...


def add_gauges(
    add_gauge: AddGauge,
    registry: Registry,
    keeper: Keeper,
    sharding: Sharding,
    server: ConnectionCounts,
) -> None:
    """Add all gauges of a node, except those of its dialects."""
    leases = keeper.leases
    add_gauge("adsum_watches", "Open watches and long polls", lambda: registry.watches.count)
    consumers = registry.watches.consumers
    add_gauge("adsum_consumers", "Cooperating consumers connected", lambda: consumers.connected_count)
    add_gauge(
        "adsum_consumers_departed",
        "Consumers whose connection ended without a good-bye",
        lambda: consumers.departed_count,
    )
    add_gauge("adsum_consumers_lost", "Consumers that drains no longer wait for", lambda: consumers.lost_count)
    add_gauge("adsum_connections", "Open HTTP connections", lambda: server.connections)
    add_gauge("adsum_connections_max", "Most HTTP connections that are accepted", lambda: server.max_connections)
    add_gauge("adsum_unsent_bytes", "Bytes buffered for HTTP clients that do not read them", server.unsent_bytes)
    add_gauge("adsum_leases", "Leases that this node keeps", lambda: len(leases))
    add_gauge("adsum_leases_lapsed", "Leases past their deadline", lambda: leases.lapsed_count)
    add_gauge("adsum_checks", "Checks that this node runs", lambda: keeper.check_count)
    add_gauge("adsum_instances", "Instances listed", lambda: registry.snapshot.instance_count)
    add_gauge("adsum_catalog_bytes", "Memory used by registrations", lambda: registry.snapshot.size)
    add_gauge("adsum_catalog_max_bytes", "Most memory that registrations may use", lambda: registry.max_catalog_bytes)
    add_gauge(
        "adsum_intent_bytes",
        "Bytes of routes and upstreams",
        lambda: registry.snapshot.documents.size(INTENT_KINDS),
    )
    add_gauge("adsum_services", "Services known", lambda: len(registry.snapshot.services))
    add_gauge("adsum_revision", "Revision of the catalog", lambda: registry.snapshot.revision)
    add_gauge(
        "adsum_store_refusing", "1 if the store refused the latest batch, else 0", lambda: registry.is_refusing_writes
    )
    add_gauge("adsum_nodes", "Nodes of this registry", lambda: 1 + len(sharding.peers()))
    add_gauge("adsum_shards_kept", "Shards of services that this node keeps, of 256", lambda: len(sharding.kept_shards))
    add_gauge(
        "adsum_catalog_age_seconds", "Seconds since the catalog was last confirmed to be the newest", registry.age
    )
    add_gauge(
        "adsum_isolated_seconds",
        "Seconds for which this node has been unable to write and to keep instances",
        registry.isolated_seconds,
    )
