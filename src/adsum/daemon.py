"""The composition root: one registry node, from its configuration to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any, Final

import uvloop

import adsum
from adsum import stores, systemd, wire
from adsum.clock import SystemClock
from adsum.config.serve import ServeConfig
from adsum.control import MAX_GRPC_CONNECTIONS, ControlPlane
from adsum.core.catalog.status_counts import StatusCounter
from adsum.core.errors import AdsumError, Invalid
from adsum.core.liveness.guard import Guard
from adsum.core.liveness.heartbeats import lost_after
from adsum.core.validation import without_credentials
from adsum.dialects import dialect
from adsum.etcd.address import SCHEME, EtcdAddress
from adsum.file_descriptors import ConnectionLimits, connection_limits, raise_descriptor_limit
from adsum.keeper import Keeper
from adsum.peers import advertised_url
from adsum.peers.peers import Peers
from adsum.probes import Probes
from adsum.registry import Registry
from adsum.servers import http
from adsum.service_references import ServiceReferences
from adsum.settings import OFF
from adsum.telemetry import Logs, Telemetry, gauges
from adsum.telemetry.sink import Sink

if TYPE_CHECKING:
    from adsum.dialects.etcd_naming.etcd_naming import EtcdNaming
    from adsum.envoy.gateway import Gateway

ADDRESS_DECISION_CACHE_SIZE: Final = 65_536
"""How many addresses' judgements are remembered: thousands of instances share a host, and come again and again."""
GC_THRESHOLDS: Final = (10_000, 5, 2_000)
"""How much is allocated before the cycle collector looks at the young, the middle-aged and all objects. A look at the
young takes about 2 ms, and one at the middle-aged 10 ms."""

_log = logging.getLogger("adsum.daemon")


class Daemon:
    """One node. `start` and `stop` it in a running loop, or `run` it until a signal or a failure ends it."""

    def __init__(self, config: ServeConfig, logs: Logs | None = None, descriptor_limit: int = sys.maxsize) -> None:
        """`limit`: how many file descriptors the process may have."""
        self._config = config
        self._limit = descriptor_limit
        self._room = self._room_of(config)
        self._clock = SystemClock()
        self._started = self._clock.wall(), self._clock.now()
        self._rng = rng = Random()  # jitter
        self._telemetry = Telemetry(self._clock, logs)
        self._logs = logs
        fence = config.address_policy()
        self._judge = lru_cache(ADDRESS_DECISION_CACHE_SIZE)(fence.denial_reason)
        self._guard = Guard(config.guard_share, config.guard_hold)
        self._probes = Probes(fence, excerpts=config.probe_excerpts)
        self._store = stores.store(config.store)
        self._shares = self._store.join(config.node)
        self._peers = Peers(self._shares, self._clock, rng, lost_after(config.heartbeat))
        self.registry = Registry(
            self._store, self._clock, self._telemetry, config.heartbeat, max_catalog_bytes=config.max_catalog
        )
        self._keeper = Keeper(
            self.registry,
            self._probes,
            self._clock,
            self._telemetry,
            rng,
            sharding=self._shares,
            guard=self._guard,
            max_probes=config.probes,
            find_referenced=ServiceReferences(self.registry, lambda service: self._control.names(service)).referenced,
        )
        self._keeper.set_forget_after(config.forget_after)
        self._native = dialect("native")(
            self.registry,
            self._keeper,
            self._clock,
            self._telemetry,
            rng,
            check_address=self._admit,
            latest_outcomes=self._keeper.last_outcomes,
            status=self.status,
            exposition=self._telemetry.exposition,
            peers=self._peers,
            node=config.node,
        )
        intents = wire.IntentCache()
        self._control = ControlPlane(
            config.xds,
            self.registry,
            self._clock,
            rng,
            connections=self._room.grpc,
            intent=lambda snapshot: intents.get(snapshot.documents),
            refusal=self._refusal,
        )
        naming = config.etcd_naming_address()
        self._naming: EtcdNaming | None = None
        if naming is not None:
            from adsum.etcd.client import EtcdClient

            speaking = dialect("etcd-naming")
            self._naming = speaking(
                EtcdClient(naming, rng), naming.prefix, self.registry, self._shares, self._admit, self._clock, rng
            )
        self._tally = StatusCounter()
        self._server: http.HttpServer | None = None
        self.urls: list[str] = []
        """Where it listens."""

    async def start(self) -> None:
        """Listen, answering 503 at first, load the catalog, and serve it.

        Raises `ListenRefused`, `StoreOpenFailed`, `StoreUnavailable` and, for settings that don't fit where etcd is,
        `Invalid`; each with a sentence for the operator.
        """
        sockets = http.listen(self._config.listen)
        self.urls = [http.socket_url(each) for each in sockets]
        try:
            self._shares.advertise(await self._url_for_others())
        except BaseException:
            for each in sockets:
                each.close()
            raise
        bounds = http.HttpLimits(self._room.http)
        hosts = http.AllowedHosts.for_sockets(self._config.listen, sockets, self._config.host_name)
        self._server = http.HttpServer(
            self._native, sockets, bounds, self._native.fast_path, hosts, self._telemetry.connection_shed
        )
        await self._server.start()
        try:
            await self._control.start()
            await self.registry.start()
            await self._keeper.start()
            await self._shares.start()
            if self._naming is not None:
                self._naming.start()
        except BaseException:
            await self.stop()
            raise
        gauges.add_gauges(
            self._telemetry.add_gauge,
            self.registry,
            self._keeper,
            self._shares,
            self._server,
            lambda: self._native.pages_bytes,
        )
        self._telemetry.add_metrics(self._control.metrics)
        _log.info(
            "node %s serves %s on %s", self._config.node, without_credentials(self._config.store), " ".join(self.urls)
        )
        if self.xds:
            _log.info("gateways and gRPC clients are told what to do on %s", self.xds)
        self._say_room()
        systemd.notify(systemd.READY)

    async def _url_for_others(self) -> str:
        if self._config.advertise or not self._config.store.startswith(SCHEME):
            return self._config.advertise or self.urls[0]
        return await advertised_url.resolve_advertised_url(
            self.urls[0], EtcdAddress.parse(self._config.store), self._rng
        )

    def _room_of(self, config: ServeConfig) -> ConnectionLimits:
        grpc = 0 if config.xds == OFF else MAX_GRPC_CONNECTIONS
        return connection_limits(self._limit, http=config.max_connections, grpc=grpc, probes=config.probes)

    def _say_room(self) -> None:
        """Tell the operator how many connections there may be, and what to do if descriptors allow no more."""
        wanted, fits = self._config.max_connections, self._room
        _log.info("there may be %d connections at a time, and %d of gateways and gRPC clients", fits.http, fits.grpc)
        if fits.http < wanted:
            _log.warning(
                "the limit of open files is %d, and so there may be %d connections at a time instead of %d: raise it "
                "(LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit -n)",
                *(self._limit, fits.http, wanted),
            )

    async def stop(self) -> None:
        """End watches and long polls, accept no more, finish what is being answered, close the store; idempotent."""
        systemd.notify(systemd.STOPPING)
        self.registry.watches.end()
        await self._control.stop()
        if self._server is not None:
            await self._server.stop()
        if self._naming is not None:
            await self._naming.close()
        await self._keeper.stop()
        await self._probes.close()
        await self._peers.close()
        await self.registry.stop()

    async def run(
        self,
        make_gateway: Callable[[str], Gateway] | None = None,
        reload_config: Callable[[], ServeConfig] | None = None,
    ) -> None:
        """Until SIGTERM or SIGINT; a second one ends the process at once. Raises what ended the registry, if it did.

        `make_gateway` makes a gateway that is told what to do at the place that it is given; it runs as long as the node.
        `again` reads the settings again, on SIGHUP.
        """
        ended, hung_up = asyncio.Event(), asyncio.Event()
        gateways: list[Gateway] = []
        with _signals(ended, hung_up):
            await self.start()
            _say(f"adsum {adsum.__version__} listens on {' '.join(self.urls)}\n")
            failing = asyncio.create_task(self.registry.wait_until_failed())
            ending = asyncio.create_task(ended.wait())
            tasks: list[asyncio.Task[Any]] = [failing, ending]
            if make_gateway is not None:
                tasks.append(asyncio.create_task(_run_beside(make_gateway, self.xds, gateways)))
            reloading = asyncio.create_task(self._reload_whenever(hung_up, reload_config, gateways))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            failed = failing.result() if failing.done() else None
            for task in (*tasks, reloading):
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(reloading, return_exceptions=True)
            await self.stop()
            if failed is not None:
                raise AdsumError(f"the registry can't go on: {failed}")
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

    async def _reload_whenever(
        self, hung_up: asyncio.Event, again: Callable[[], ServeConfig] | None, gateways: Sequence[Gateway]
    ) -> None:
        """On each SIGHUP, read the settings again and take over what can change; a gateway does so, too."""
        while True:
            await hung_up.wait()
            hung_up.clear()
            systemd.notify(systemd.reloading_state())
            try:
                if again is not None:
                    await self.reload(again())
            except AdsumError as error:
                _log.error("the settings stay as they were: %s", error)
            settled = asyncio.Event()
            for gateway in gateways:
                gateway.reload(settled.set)
            if gateways:
                await settled.wait()
            systemd.notify(systemd.READY)

    async def reload(self, config: ServeConfig) -> None:
        """Take over the settings that can change while it runs; the log names those, and those that need a restart."""
        changed = [each for each in fields(config) if getattr(config, each.name) != getattr(self._config, each.name)]
        taken = [each.name for each in changed if each.metadata["reloads"]]
        self._config = config = replace(self._config, **{name: getattr(config, name) for name in taken})
        fence = config.address_policy()
        self._judge = lru_cache(ADDRESS_DECISION_CACHE_SIZE)(fence.denial_reason)
        await self._probes.reconfigure(fence, excerpts=config.probe_excerpts)
        self._guard.configure(config.guard_share, config.guard_hold)
        self._keeper.set_max_probes(config.probes)
        self.registry.max_catalog_bytes = config.max_catalog
        self._keeper.set_forget_after(config.forget_after)
        if self._server is not None:
            self._room = self._room_of(config)
            self._server.set_max_connections(self._room.http)
            self._say_room()
        if self._logs is not None:
            self._logs.set_level(config.log_level)
        _log.info("the settings were read again; changed: %s", ", ".join(taken) or "nothing")
        left = [each.name for each in changed if not each.metadata["reloads"]]
        if left:
            _log.warning("these settings change at the next restart only: %s", ", ".join(left))

    @property
    def xds(self) -> str:
        """Where gateways and gRPC clients are told what to do, as HOST:PORT; "" if nowhere."""
        return self._control.address

    def status(self) -> wire.NodeStatus:
        """What the node says of itself."""
        snapshot, leases = self.registry.snapshot, self._keeper.leases
        wall, began = self._started
        unready = self.registry.unready_reason()
        return wire.NodeStatus(
            node=self._config.node,
            version=adsum.__version__,
            ready=not unready,
            unready_reason=unready,
            epoch=snapshot.epoch,
            revision=snapshot.revision,
            store=without_credentials(self._config.store),
            started=round(wall, 3),
            uptime=round(self._clock.now() - began, 3),
            age=self.registry.age(),
            isolated_seconds=self.registry.isolated_seconds(),
            services=len(snapshot.services),
            instances=snapshot.instance_count,
            catalog_bytes=snapshot.size,
            catalog_max_bytes=self.registry.max_catalog_bytes,
            intent_bytes=snapshot.documents.size,
            status_counts=self._tally.count(snapshot),
            watches=self.registry.watches.count,
            consumers=self.registry.watches.consumers.connected_count,
            consumers_departed=self.registry.watches.consumers.departed_count,
            consumers_lost=self.registry.watches.consumers.lost_count,
            leases=len(leases),
            leases_lapsed=leases.lapsed_count,
            checks=self._keeper.check_count,
            check_lag=self._telemetry.lag.seconds,
            checks_overdue=self._telemetry.lag.overdue,
            shards=len(self._shares.kept_shards),
            peers=[wire.PeerView(peer.name, peer.url, share) for peer, share in self._shares.peers()],
            store_condition=dict(self._store.condition()),
            guards=dict(self._telemetry.guards),
            gateways=self._control.status(),
            gateways_disconnected=self._control.departed(),
            refused_streams=self._control.refused(),
            traffic=self._control.traffic(),
        )

    def _refusal(self, ip: str) -> str | None:
        return self._judge(ip)

    def _admit(self, address: str) -> None:
        """A registration's address must be one that probes may go to; names are judged when they are probed."""
        if ":" in address or address.replace(".", "").isdigit():
            refusal = self._refusal(address)
            if refusal is not None:
                raise Invalid("address", refusal)


def serve(
    config: ServeConfig,
    make_gateway: Callable[[str], Gateway] | None = None,
    reload_config: Callable[[], ServeConfig] | None = None,
) -> None:
    """Run a node until it is told to end, with a gateway `make_gateway` it. Raises `AdsumError` with a sentence.

    `again` reads the settings again when SIGHUP comes.
    """
    limit = raise_descriptor_limit()
    _collect_rarely()
    logs = Logs(config.log_level, config.log_format)
    try:
        uvloop.run(Daemon(config, logs, limit).run(make_gateway, reload_config))
    finally:
        logs.close()


async def _run_beside(make: Callable[[str], Gateway], xds: str, running: list[Gateway]) -> None:
    """Until cancelled; then it is drained. Once it serves, it is in `running`."""
    gateway = make(xds)
    try:
        await gateway.start()
        running.append(gateway)
        _say(f"adsum gateway listens on {' '.join(gateway.urls)}\n")
        await gateway.wait_until_failed()
    finally:
        await gateway.stop()


def _say(text: str) -> None:
    """Write to standard output; a pipe that nobody reads, or that has ended, and a full disk don't hold the node up."""
    if sys.stdout is not None:
        sink = Sink(sys.stdout.fileno())
        sink.put(text.encode())
        sink.close(timeout=0.0)


@contextlib.contextmanager
def _signals(ended: asyncio.Event, hung_up: asyncio.Event) -> Iterator[None]:
    """Set the events on SIGTERM or SIGINT and on SIGHUP, while within."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)  # The second one ends us at once, as the system does it.
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _collect_rarely() -> None:
    """Nearly everything here lives long and in no cycle: looking through all of it again and again stops the node."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
