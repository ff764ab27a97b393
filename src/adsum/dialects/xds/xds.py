"""The dialect: gateways and gRPC clients, kept at what the registry knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Key
from adsum.dialects.xds.bounds import LOOK
from adsum.dialects.xds.host_names import Addresses, Refusal
from adsum.dialects.xds.publisher import Compiled, IntentOf, Publisher
from adsum.dialects.xds.streams import delta, sotw
from adsum.dialects.xds.streams.stream import Call
from adsum.dialects.xds.streams.streams import Streams
from adsum.dialects.xds.telemetry.load_reports import Load, Loads
from adsum.dialects.xds.telemetry.traffic import Traffic
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.watches import Watch

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
        compiled: Compiled,
        intent: IntentOf,
        refusal: Refusal,
    ) -> None:
        """`compiled` is what is seen before anything is known; `refusal` says why an address may not be routed to."""
        self._registry = registry
        self._clock = clock
        self._publisher = Publisher(compiled, intent)
        self._addresses = Addresses(clock, rng, refusal, self._look_again)
        self._watch: Watch | None = None
        self._preparing = False
        """Whether the publisher is compiling in another thread."""
        self._tasks: list[asyncio.Task[None]] = []
        self.streams = Streams(self._publisher, registry.watches, clock, self._catch_up)
        self.loads = Loads(clock, lambda service: service in registry.snapshot.services, self.streams.refusals)
        self.traffic = Traffic(clock, self.streams.told, self.streams.refusals)
        self.methods: Mapping[str, Callable[[Call], Awaitable[None]]] = MappingProxyType(
            {
                f"{_ADS}/DeltaAggregatedResources": lambda call: self.streams.speak(call, delta),
                f"{_ADS}/StreamAggregatedResources": lambda call: self.streams.speak(call, sotw),
                f"{_LRS}/StreamLoadStats": self.loads.speak,
                f"{_METRICS}/StreamMetrics": self.traffic.speak,
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

    def instance_loads(self) -> Iterator[tuple[Key, Load]]:
        """What gateways said of the tries that they made at each instance."""
        return self.loads.by_instance(self._registry.snapshot.services, self._addresses.known)

    def names(self, service: str) -> bool:
        """Whether a gRPC client asks for that service; gateways ask for all."""
        return self._publisher.names(service)

    async def _follow(self) -> None:
        """Publish every snapshot; the registry's watch tells of the first change at once, and of bursts together.

        While nobody is told, only the first is: it shows whether the registry began with an empty catalog.
        """
        watches = self._registry.watches
        with watches.open(None) as self._watch:
            while not watches.ended:
                if self._registry.ready:
                    self._addresses.follow(self._registry.snapshot)
                    if self._publisher.attended or not self._publisher.number:
                        await self._prepare_and_publish()
                await self._watch.changed()

    def _catch_up(self) -> None:
        """Somebody is about to be told, maybe the first for long; what takes long to compile comes a little later."""
        snapshot, addresses = self._registry.snapshot, self._addresses.known
        if self._preparing or not (self._publisher.number and self._publisher.behind(snapshot, addresses)):
            return
        if self._publisher.is_much(snapshot) and self._publisher.may_wait:
            self._look_again()
        else:
            self._publish(snapshot, addresses)

    async def _prepare_and_publish(self) -> None:
        """Publish; what takes long to compile is compiled in a thread, so that it holds up nobody else."""
        snapshot, addresses = self._registry.snapshot, self._addresses.known
        if self._publisher.is_much(snapshot):
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
            self.streams.recall()
        if told is None:
            self.streams.tell_all()
        else:
            self.streams.tell(told)
        self.streams.settle()

    def _look_again(self) -> None:
        if self._watch is not None:
            self._watch.wake()

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(LOOK)
            self.streams.look()
            if self._publisher.settle(self._clock.now()):
                self.streams.tell_all()
