"""The control plane of gateways and gRPC clients: the xDS dialect on its gRPC server, or neither of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Final

from prometheus_client.core import Metric

from adsum import wire
from adsum.config.addresses import DEFAULT_XDS_LISTEN
from adsum.core.errors import AdsumError
from adsum.dialects import dialect
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.settings import OFF
from adsum.telemetry import gateway_metrics

if TYPE_CHECKING:
    from adsum.core.catalog.snapshots import Snapshot
    from adsum.dialects.xds import StreamStatus, Xds
    from adsum.gateway.intent.intent import Intent

MAX_GRPC_CONNECTIONS: Final = 12_000
"""Connections of gateways and gRPC clients at a time, fewer where descriptors are scarce; past it new ones are closed.
Before that, a stream is refused with a word: five of six connections may have one."""
MAX_GATEWAYS_LISTED: Final = 200
"""Gateways that a status lists, those that reject something first."""
MAX_SERVICES_LISTED: Final = 1_000
"""Services whose traffic a status tells."""
REQUIRED_PACKAGES: Final = "grpcio and xds-protos (pip install 'adsum[registry]')"

_log = logging.getLogger("adsum.control")


class ControlPlane:
    """Serves xDS at `address`; nothing at all if that is `off`, or the default and its libraries are not installed."""

    def __init__(
        self,
        address: str,
        registry: Registry,
        clock: Clock,
        rng: Random,
        *,
        connections: int,
        intent: Callable[[Snapshot], Intent],
        refusal: Callable[[str], str | None],
    ) -> None:
        """`connections`: how many there may be at a time. `intent` is what operators want, the same object while it is
        the same; `refusal` says why an address may not be routed to. Raises `AdsumError` if what it needs is missing.
        """
        self._wanted = address
        self.address = ""
        """Where it listens; "" while it does not."""
        self._xds: Xds | None = None
        if address == OFF:
            return
        try:
            # Imported when wanted: they take a third of the time that a node needs to start.
            from adsum.dialects.xds.bounds import MAX_REQUEST_BYTES
            from adsum.gateway.resources.compiled_resources import NO_RESOURCES
            from adsum.servers import grpc
        except ModuleNotFoundError as error:
            if address != DEFAULT_XDS_LISTEN:
                raise AdsumError(f"--xds needs {REQUIRED_PACKAGES}: {error}") from None
            _log.info("gateways and gRPC clients are not served: that needs %s", REQUIRED_PACKAGES)
            return
        self._xds = dialect("xds")(registry, clock, rng, compiled=NO_RESOURCES, intent=intent, refusal=refusal)
        self._xds.streams.max_streams = min(self._xds.streams.max_streams, max(1, connections * 5 // 6))
        self._server = grpc.GrpcServer(self._xds.methods, MAX_REQUEST_BYTES, connections)

    async def start(self) -> None:
        """Listen; what is asked is answered once the catalog is loaded. Raises `AdsumError` with the remedy."""
        if self._xds is None:
            return
        try:
            self.address = await self._server.start(self._wanted)
        except AdsumError as error:
            raise AdsumError(
                f"{error}; --xds HOST:PORT tells gateways and gRPC clients elsewhere, --xds off not at all"
            ) from None
        await self._xds.start()

    async def stop(self) -> None:
        """End all streams, and listen no more; idempotent."""
        if self._xds is not None:
            await self._xds.stop()
            await self._server.stop()

    def names(self, service: str) -> bool:
        """Whether a gRPC client asks for that service."""
        return self._xds is not None and self._xds.has_grpc_subscriber(service)

    def status(self) -> list[wire.GatewayView]:
        """What is known of gateways and gRPC clients; at most `MAX_GATEWAYS_LISTED`, those that reject something first."""
        xds = self._xds
        if xds is None:
            return []
        statuses = xds.streams.statuses()
        newest = {each.node: each for each in statuses}  # Of a gateway whose Envoy is being replaced, two are there.
        known = sorted(statuses, key=lambda each: not each.rejections)[:MAX_GATEWAYS_LISTED]
        return [_view(each, xds, speaks=newest[each.node] is each) for each in known]

    def departed(self) -> list[wire.DisconnectedGatewayView]:
        """Gateways that are not connected here any more, the latest first."""
        known = [] if self._xds is None else self._xds.streams.departed_gateways()
        return [
            wire.DisconnectedGatewayView(each.node, each.client, each.peer, round(away, 3), each.revision)
            for away, each in known
        ]

    def refused(self) -> list[wire.RefusedStreamView]:
        """Clients whose streams were ended of late, the latest first."""
        known = [] if self._xds is None else self._xds.streams.refusals.recent()
        return [
            wire.RefusedStreamView(each.node, each.peer, each.code, each.reason, round(each.at, 3), each.count)
            for each in known
        ]

    def traffic(self) -> list[wire.TrafficView]:
        """What gateways answered by service; at most `MAX_SERVICES_LISTED`, those with the most errors first."""
        known = [] if self._xds is None else list(self._xds.traffic.by_service().items())
        known.sort(key=lambda each: (-each[1].errors, -each[1].requests, each[0]))
        return [
            wire.TrafficView(service, each.requests, each.errors, round(each.p50, 6), round(each.p99, 6))
            for service, each in known[:MAX_SERVICES_LISTED]
        ]

    def metrics(self) -> Iterable[Metric]:
        """For Prometheus."""
        return () if self._xds is None else gateway_metrics.metrics(self._xds)


def _view(status: StreamStatus, xds: Xds, *, speaks: bool) -> wire.GatewayView:
    """`speaks`: what its node says is said of it, not of the one that it takes over from."""
    node = status.node if speaks else ""
    answered = xds.traffic.gateway_summary(node)
    return wire.GatewayView(
        node=status.node,
        client=status.client,
        peer=status.peer,
        since=round(status.since, 3),
        revision=status.revision,
        rejections=status.rejections,
        requests=answered.requests,
        errors=answered.errors,
        in_progress=xds.traffic.requests_in_progress(node),
        p50=round(answered.p50, 6),
        p99=round(answered.p99, 6),
        certificate_expires=xds.traffic.certificate_expires(node),
    )
