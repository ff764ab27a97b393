"""The base class of dialects, and the parts of the node that a dialect may use.

A dialect is one wire language about the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from adsum.access.authority import AuthorityService
from adsum.access.control import AccessControl
from adsum.access.registry_addresses import RegistryAddresses
from adsum.keeper import Keeper
from adsum.mounts import Mount
from adsum.peers.peers import Peers
from adsum.ports import Clock, Observer, Sharding
from adsum.registry import Registry

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from adsum import wire
    from adsum.core.catalog.snapshots import Snapshot
    from adsum.gateway.intent.intent import Intent

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class DialectContext:
    """Everything of the node that a dialect may use."""

    registry: Registry
    """Snapshots, watches and writes."""
    keeper: Keeper
    """Leases and checks."""
    sharding: Sharding
    """Which services this node keeps, and which node keeps the others."""
    peers: Peers
    """The other nodes, for requests that they must answer."""
    clock: Clock
    rng: Random
    observer: Observer
    """Metrics and logs of requests."""
    access: AccessControl
    """Who a caller is, and what it may do. Every request goes through it."""
    authority: AuthorityService | None
    """The authority of the registry; None if the node serves no TLS."""
    addresses: Callable[[], RegistryAddresses]
    """Returns the addresses at which other hosts reach the nodes over TLS; none if the node serves no TLS."""
    node: str
    """The name of this node."""
    store: str
    """The URL of the node's store."""
    settings: object
    """The settings of the node; see `settings_of`."""
    denial_reason: Callable[[str], str | None]
    """Returns why an IP address may not be used for an instance; None if it may."""
    check_address: Callable[[str], None]
    """Raises `Invalid` for an IP address that may not be used for an instance; accepts every host name."""
    intent: Callable[[Snapshot], Intent]
    """The routes and upstreams of a snapshot; the same object until they change."""
    node_status: Callable[[], wire.NodeStatus]
    """Returns the status of this node."""
    metrics_text: Callable[[], bytes]
    """All metrics in Prometheus's text format."""

    def settings_of(self, kind: type[T]) -> T:
        """Returns the settings as this class, which must be one of the bases of `adsum.dialects.DialectSettings`."""
        if not isinstance(self.settings, kind):
            raise TypeError(f"{kind.__name__} is not among the bases of adsum.dialects.DialectSettings")
        return self.settings


class Dialect:
    """The base class of dialects. Each method has a default, so that a dialect overrides only what it needs.

    A node calls `mounts` once, opens them, and calls `start`, `catalog_loaded` and at the end `stop`.
    """

    def mounts(self) -> Sequence[Mount]:
        """Returns what the node serves for this dialect."""
        return ()

    async def start(self) -> None:
        """Starts background tasks. The listeners are open; the catalog is not loaded yet (`Registry.is_ready`)."""

    async def catalog_loaded(self) -> None:
        """Starts what needs the catalog: it is loaded, and the node keeps its share of the services."""

    async def stop(self) -> None:
        """Ends background tasks and streams; idempotent. Called also if `start` was not. Listeners close afterwards."""

    def is_requested(self, service: str) -> bool:
        """Returns whether a connected client asks for that service by name, so that the registry must not forget it."""
        return False

    def metrics(self) -> Iterable[Metric]:
        """Returns the metrics of this dialect; called at every scrape."""
        return ()

    def node_status(self) -> Mapping[str, Any]:
        """Returns the fields of `wire.NodeStatus` that this dialect fills, by name."""
        return {}

    def reload(self, settings: object) -> None:
        """Takes over settings that are declared with `reloads=True`."""
