"""xDS for a registry: publishes its snapshots to gateways and gRPC clients, and receives their reports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Final

from adsum.access.control import AccessControl
from adsum.core.access.actions import Action
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Key
from adsum.dialects.xds.host_names import AddressRefusal, HostNameResolver
from adsum.dialects.xds.publisher import IntentSource, Publisher
from adsum.dialects.xds.streams import delta, sotw
from adsum.dialects.xds.streams.call_access import CallAccess
from adsum.dialects.xds.streams.streams import Streams
from adsum.dialects.xds.telemetry.load_reports import InstanceTries, LoadReports
from adsum.dialects.xds.telemetry.traffic import TrafficReports
from adsum.gateway.resources.compiled_resources import NO_RESOURCES, CompiledResources
from adsum.mounts import GrpcMethod
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.watches import Watch

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two searches for stalled streams, and for streams whose deferred responses are due."""

_ADS: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
_LRS: Final = "/envoy.service.load_stats.v3.LoadReportingService"
_METRICS: Final = "/envoy.service.metrics.v3.MetricsService"


class Xds:
    """Serves the gRPC methods of xDS, from `start` to `stop`."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        rng: Random,
        access: AccessControl,
        *,
        intent: IntentSource,
        refusal: AddressRefusal,
        compiled: CompiledResources = NO_RESOURCES,
    ) -> None:
        """`refusal` returns why an IP address may not be used, None if it may.

        `compiled` is what clients get before the first snapshot.
        """
        self._registry = registry
        self._clock = clock
        self._access = access
        self._publisher = Publisher(compiled, intent)
        self._addresses = HostNameResolver(clock, rng, refusal, self._wake)
        self._watch: Watch | None = None
        self._preparing = False
        """True while the publisher compiles in another thread."""
        self._tasks: list[asyncio.Task[None]] = []
        self.streams = Streams(self._publisher, registry.watches, clock, self._catch_up)
        self.load_reports = LoadReports(
            clock, lambda service: service in registry.snapshot.services, self.streams.refusals
        )
        self.traffic = TrafficReports(clock, self.streams.gateway_subscribers, self.streams.refusals)
        calls = CallAccess(access, registry, self.streams.refusals)
        discovery = partial(calls.serve, "xds_discovery", Action.WATCH)
        self.methods: Mapping[str, GrpcMethod] = MappingProxyType(
            {
                f"{_ADS}/DeltaAggregatedResources": partial(discovery, partial(self.streams.serve, variant=delta)),
                f"{_ADS}/StreamAggregatedResources": partial(discovery, partial(self.streams.serve, variant=sotw)),
                f"{_LRS}/StreamLoadStats": partial(
                    calls.serve, "xds_load_report", Action.REPORT, self.load_reports.serve
                ),
                f"{_METRICS}/StreamMetrics": partial(calls.serve, "xds_metrics", Action.REPORT, self.traffic.serve),
            }
        )
        """The gRPC methods, by path."""

    async def start(self) -> None:
        """Follows the registry. Streams are answered once its catalog is loaded."""
        self._tasks = [
            asyncio.create_task(self._follow(), name="adsum-xds-follow"),
            asyncio.create_task(self._sweep(), name="adsum-xds-sweep"),
        ]

    async def stop(self) -> None:
        """Ends all streams and stops following the registry; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.streams.close()
        await self._addresses.close()

    def tries_by_instance(self) -> Iterator[tuple[Key, InstanceTries]]:
        """Returns the tries that gateways have reported, by instance."""
        return self.load_reports.by_instance(self._registry.snapshot.services, self._addresses.addresses)

    def has_grpc_subscriber(self, service: str) -> bool:
        """Returns whether a gRPC client subscribes to that service; gateways subscribe to all."""
        return self._publisher.has_grpc_subscriber(service)

    async def _follow(self) -> None:
        """Publishes every snapshot. The watch wakes for the first change at once, and for a burst of changes once.

        Without clients only the first snapshot is published: it shows whether the registry began with an empty catalog.
        """
        watches = self._registry.watches
        with watches.open(None) as self._watch:
            while not watches.is_ended:
                if self._registry.is_ready:
                    self._addresses.follow(self._registry.snapshot)
                    if self._publisher.has_subscribers or not self._publisher.publication:
                        await self._prepare_and_publish()
                await self._watch.changed()

    def _catch_up(self) -> None:
        """Publishes the newest snapshot for a client that joins; a little later if compiling it takes long."""
        snapshot, addresses = self._registry.snapshot, self._addresses.addresses
        if self._preparing or not (self._publisher.publication and self._publisher.is_behind(snapshot, addresses)):
            return
        if self._publisher.is_expensive(snapshot) and self._publisher.can_defer:
            self._wake()
        else:
            self._publish(snapshot, addresses)

    async def _prepare_and_publish(self) -> None:
        """Publishes the newest snapshot. If compiling it takes long, a thread does it, so the loop is not blocked."""
        snapshot, addresses = self._registry.snapshot, self._addresses.addresses
        if self._publisher.is_expensive(snapshot):
            self._preparing = True
            try:
                await asyncio.to_thread(self._publisher.prepare, snapshot, addresses)
            finally:
                self._preparing = False
        self._publish(snapshot, addresses)
        if self._publisher.has_new_groups:  # They have come meanwhile, and are compiled next.
            self._wake()

    def _publish(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> None:
        self._access.refresh()  # Callers whose rights end with this snapshot get nothing of it.
        before = self._publisher.epoch
        sessions = self._publisher.publish(snapshot, addresses, self._clock.now())
        if before and self._publisher.epoch != before:
            self.streams.begin_epoch()
        if sessions is None:
            self.streams.push_all()
        else:
            self.streams.push(sessions)
        self.streams.acknowledge_current()

    def _wake(self) -> None:
        if self._watch is not None:
            self._watch.wake()

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_INTERVAL)
            self.streams.sweep()
            if self._publisher.end_settling(self._clock.now()):
                self.streams.push_all()
