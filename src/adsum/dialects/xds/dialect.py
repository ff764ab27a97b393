"""The xDS dialect of a node: its gRPC listener, its metrics, and its part of the node's status."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from adsum.core.errors import AdsumError
from adsum.dialects.dialect import Dialect, DialectContext
from adsum.dialects.xds.settings import DEFAULT_XDS_LISTEN, XdsSettings
from adsum.mounts import GrpcListener, Mount
from adsum.settings import OFF

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from adsum.dialects.xds.xds import Xds

MAX_GRPC_CONNECTIONS: Final = 12_000
"""Connections of gateways and gRPC clients at a time, fewer where file descriptors are scarce; past it new connections
are closed. A stream past five sixths of this number is refused with an error, which tells the client more."""
REQUIRED_PACKAGES: Final = "grpcio and xds-protos (pip install 'adsum[registry]')"

_log = logging.getLogger("adsum.xds")


def create(context: DialectContext) -> XdsDialect | None:
    """Makes the dialect; None if `--xds off`, or if the libraries are missing and xDS was not configured.

    Raises `AdsumError` if an address was configured and the libraries are missing.
    """
    address = context.settings_of(XdsSettings).xds
    if address == OFF:
        return None
    try:
        # Imported only if needed: these take a third of the time that a node needs to start.
        import grpc  # noqa: F401

        from adsum.dialects.xds.xds import Xds
    except ModuleNotFoundError as error:
        if address != DEFAULT_XDS_LISTEN:
            raise AdsumError(f"--xds needs {REQUIRED_PACKAGES}: {error}") from None
        _log.info("xDS is off, so gateways and gRPC clients can't connect: it needs %s", REQUIRED_PACKAGES)
        return None
    xds = Xds(
        context.registry,
        context.clock,
        context.rng,
        context.access,
        intent=context.intent,
        refusal=context.denial_reason,
    )
    return XdsDialect(xds, address)


class XdsDialect(Dialect):
    """Serves xDS for gateways and gRPC clients on a gRPC listener of its own."""

    def __init__(self, xds: Xds, address: str) -> None:
        self._xds = xds
        self._address = address

    def mounts(self) -> Sequence[Mount]:
        from adsum.dialects.xds.streams.request import MAX_REQUEST_BYTES

        return [
            GrpcListener(
                self._address,
                "choose another address with --xds HOST:PORT, or disable xDS with --xds off",
                self._xds.methods,
                MAX_REQUEST_BYTES,
                MAX_GRPC_CONNECTIONS,
                self._set_connection_limit,
            )
        ]

    def _set_connection_limit(self, connections: int) -> None:
        streams = self._xds.streams
        streams.max_streams = min(streams.max_streams, max(1, connections * 5 // 6))

    async def start(self) -> None:
        await self._xds.start()

    async def stop(self) -> None:
        await self._xds.stop()

    def is_requested(self, service: str) -> bool:
        return self._xds.has_grpc_subscriber(service)

    def metrics(self) -> Iterable[Metric]:
        from adsum.dialects.xds.telemetry import metrics

        return metrics.metrics(self._xds)

    def node_status(self) -> Mapping[str, Any]:
        from adsum.dialects.xds.telemetry import node_status

        return node_status.node_status(self._xds)
