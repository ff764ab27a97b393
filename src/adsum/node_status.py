"""The status of a node, as the API and `adsum status` show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from adsum import wire
from adsum.config.serve import ServeConfig
from adsum.core.catalog.documents import INTENT_KINDS
from adsum.core.catalog.status_counts import StatusCounter
from adsum.core.validation import without_credentials
from adsum.dialects.dialect import Dialect
from adsum.keeper import Keeper
from adsum.ports import Clock, Sharding, Store
from adsum.registry import Registry
from adsum.telemetry import Telemetry
from adsum.version import __version__

if TYPE_CHECKING:
    from adsum.node_security.node_security import NodeSecurity


class NodeStatusReader:
    """Reads the status of a node from its parts."""

    def __init__(
        self,
        config: ServeConfig,
        registry: Registry,
        keeper: Keeper,
        store: Store,
        sharding: Sharding,
        telemetry: Telemetry,
        security: NodeSecurity | None,
        dialects: Callable[[], Iterable[Dialect]],
        clock: Clock,
    ) -> None:
        """The node counts as started now. `security` is None if it serves no TLS."""
        self._config = config
        self._registry = registry
        self._keeper = keeper
        self._store = store
        self._sharding = sharding
        self._telemetry = telemetry
        self._security = security
        self._dialects = dialects
        self._clock = clock
        self._started = clock.wall(), clock.now()
        self._status_counter = StatusCounter()

    def read(self) -> wire.NodeStatus:
        """Returns the status of this node."""
        snapshot, leases = self._registry.snapshot, self._keeper.leases
        wall, began = self._started
        unready = self._registry.unready_reason()
        return wire.NodeStatus(
            node=self._config.node,
            version=__version__,
            ready=not unready,
            unready_reason=unready,
            epoch=snapshot.epoch,
            revision=snapshot.revision,
            store=without_credentials(self._config.store),
            started=round(wall, 3),
            uptime=round(self._clock.now() - began, 3),
            age=self._registry.age(),
            isolated_seconds=self._registry.isolated_seconds(),
            services=len(snapshot.services),
            instances=snapshot.instance_count,
            catalog_bytes=snapshot.size,
            catalog_max_bytes=self._registry.max_catalog_bytes,
            intent_bytes=snapshot.documents.size(INTENT_KINDS),
            status_counts=self._status_counter.count(snapshot),
            watches=self._registry.watches.count,
            consumers=self._registry.watches.consumers.connected_count,
            consumers_departed=self._registry.watches.consumers.departed_count,
            consumers_lost=self._registry.watches.consumers.lost_count,
            leases=len(leases),
            leases_lapsed=leases.lapsed_count,
            checks=self._keeper.check_count,
            check_lag=self._telemetry.lag.seconds,
            checks_overdue=self._telemetry.lag.overdue,
            shards=len(self._sharding.kept_shards),
            peers=[wire.PeerView(peer.name, peer.url, share) for peer, share in self._sharding.peers()],
            store_condition=dict(self._store.condition()),
            guards=dict(self._telemetry.guards),
            security=self._config.security,
            certificates=self._security.views() if self._security is not None else [],
            **self._dialects_status(),
        )

    def _dialects_status(self) -> dict[str, Any]:
        return {name: value for dialect in self._dialects() for name, value in dialect.node_status().items()}
