"""The dialect: gateways and gRPC clients, kept at what the registry knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Key
from adsum.dialects.xds.host_names import AddressRefusal, HostNameResolver
from adsum.dialects.xds.publisher import IntentSource, Publisher
from adsum.dialects.xds.streams import delta, sotw
from adsum.dialects.xds.streams.streams import Streams
from adsum.dialects.xds.telemetry.load_reports import InstanceTries, LoadReports
from adsum.dialects.xds.telemetry.traffic import TrafficReports
from adsum.gateway.resources.compiled_resources import NO_RESOURCES, CompiledResources
from adsum.mounts import GrpcMethod
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.watches import Watch

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two searches for streams that stall, or that have waited for long enough."""

_ADS: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
_LRS: Final = "/envoy.service.load_stats.v3.LoadReportingService"
_METRICS: Final = "/envoy.service.metrics.v3.MetricsService"


class Xds:
    """Speaks xDS to everybody who calls one of its `methods`."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        rng: Random,
        *,
        intent: IntentSource,
        refusal: AddressRefusal,
        compiled: CompiledResources = NO_RESOURCES,
    ) -> None:
        """`intent` returns the routes and upstreams of a snapshot, `refusal` why an IP address may not be used or None.

        `compiled` is what clients get before the first snapshot.
        """
        self._registry = registry
        self._clock = clock
        self._publisher = Publisher(compiled, intent)
        self._addresses = HostNameResolver(clock, rng, refusal, self._look_again)
        self._watch: Watch | None = None
        self._preparing = False
        """Whether the publisher is compiling in another thread."""
        self._tasks: list[asyncio.Task[None]] = []
        self.streams = Streams(self._publisher, registry.watches, clock, self._catch_up)
        self.load_reports = LoadReports(
            clock, lambda service: service in registry.snapshot.services, self.streams.refusals
        )
        self.traffic = TrafficReports(clock, self.streams.gateway_subscribers, self.streams.refusals)
        self.methods: Mapping[str, GrpcMethod] = MappingProxyType(
            {
                f"{_ADS}/DeltaAggregatedResources": lambda call: self.streams.serve(call, delta),
                f"{_ADS}/StreamAggregatedResources": lambda call: self.streams.serve(call, sotw),
                f"{_LRS}/StreamLoadStats": self.load_reports.serve,
                f"{_METRICS}/StreamMetrics": self.traffic.serve,
            }
        )
        """What may be called, by path."""

    async def start(self) -> None:
        """Follow the registry; streams that came before are answered once its catalog is loaded."""
        self._tasks = [
            asyncio.create_task(self._follow(), name="adsum-xds-follow"),
            asyncio.create_task(self._look(), name="adsum-xds-look"),
        ]

    async def stop(self) -> None:
        """Tell nobody anything more; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.streams.close()
        await self._addresses.close()

    def tries_by_instance(self) -> Iterator[tuple[Key, InstanceTries]]:
        """What gateways said of the tries that they made at each instance."""
        return self.load_reports.by_instance(self._registry.snapshot.services, self._addresses.addresses)

    def has_grpc_subscriber(self, service: str) -> bool:
        """Whether a gRPC client asks for that service; gateways ask for all."""
        return self._publisher.has_grpc_subscriber(service)

    async def _follow(self) -> None:
        """Publish every snapshot; the registry's watch tells of the first change at once, and of bursts together.

        While nobody is told, only the first is: it shows whether the registry began with an empty catalog.
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
        """Somebody is about to be told, maybe the first for long; what takes long to compile comes a little later."""
        snapshot, addresses = self._registry.snapshot, self._addresses.addresses
        if self._preparing or not (self._publisher.publication and self._publisher.is_behind(snapshot, addresses)):
            return
        if self._publisher.is_expensive(snapshot) and self._publisher.can_defer:
            self._look_again()
        else:
            self._publish(snapshot, addresses)

    async def _prepare_and_publish(self) -> None:
        """Publish; what takes long to compile is compiled in a thread, so that it holds up nobody else."""
        snapshot, addresses = self._registry.snapshot, self._addresses.addresses
        if self._publisher.is_expensive(snapshot):
            self._preparing = True
            try:
                await asyncio.to_thread(self._publisher.prepare, snapshot, addresses)
            finally:
                self._preparing = False
        self._publish(snapshot, addresses)

    def _publish(self, snapshot: Snapshot, addresses: Mapping[str, str]) -> None:
        before = self._publisher.epoch
        told = self._publisher.publish(snapshot, addresses, self._clock.now())
        if before and self._publisher.epoch != before:
            self.streams.begin_epoch()
        if told is None:
            self.streams.push_all()
        else:
            self.streams.push(told)
        self.streams.acknowledge_current()

    def _look_again(self) -> None:
        if self._watch is not None:
            self._watch.wake()

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_INTERVAL)
            self.streams.sweep()
            if self._publisher.end_settling(self._clock.now()):
                self.streams.push_all()
