"""gRPC without a proxy: `channel("orders")` calls the live instances of a service, `serving` lists a server.

Calls go straight to instances: grpc itself follows the registry over xDS (gRFC A27), balances, and leaves out who
drains.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from adsum.client.client import Client
from adsum.client.registration.registrar import Registrar
from adsum.client.sync import SyncClient, SyncRegistrar
from adsum.core import validation
from adsum.integrations.grpc_bootstrap import grpc_bootstrap

XDS_VARIABLE: Final = "ADSUM_GRPC_XDS"
"""HOST:PORT of the registry's nodes, separated by commas; without it, port 23787 at the hosts of ADSUM_URL."""
BOOTSTRAP_FILE_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP"
BOOTSTRAP_JSON_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"
"""Where grpc looks for its bootstrap: a file, or the JSON itself. If one is set already, it is left as it is."""
STOP_GRACE: Final = 10.0
"""Seconds that calls may go on after a server was told to stop; then they are cut off."""

NO_PROXY_VARIABLE: Final = "no_grpc_proxy"
"""Where grpc looks for hosts that it reaches without the proxy of the environment, before it looks in `no_proxy`."""
_DIRECT: Final = (("grpc.enable_http_proxy", 0),)
"""Instances are near, and a proxy knows none of them."""

Options = Sequence[tuple[str, Any]]


def channel(service: str, *, xds: str = "", options: Options = ()) -> grpc.aio.Channel:
    """A channel to the live instances of a service; needs no network to be made. Raises `Invalid`.

    The first channel of a process settles which registry all of them ask: `xds`, else ADSUM_GRPC_XDS, else port 23787
    at the hosts of ADSUM_URL. Calls to a service that nobody has registered fail at once with UNAVAILABLE.
    """
    return grpc.aio.insecure_channel(_target(service, xds), options=[*_DIRECT, *options])


def sync_channel(service: str, *, xds: str = "", options: Options = ()) -> grpc.Channel:
    """What `channel` gives, for programs without asyncio. grpc must not be forked: make it after a fork."""
    return grpc.insecure_channel(_target(service, xds), options=[*_DIRECT, *options])


@asynccontextmanager
async def serving(
    client: Client, server: grpc.aio.Server, service: str, port: int, *, grace: float = STOP_GRACE, **registration: Any
) -> AsyncIterator[Registrar]:
    """Start a server, its health service with it, and keep it listed until the block ends.

    Then it is drained (nobody who follows the registry calls it any more), deregistered, says that it is not serving,
    and stops: calls that run have `grace` seconds. So it is on SIGTERM and SIGINT, before they end the block.
    `registration` is what `Client.register` takes; its check is `grpc` and its scheme `grpc` unless told otherwise.
    Raises what `Client.register` raises.
    """
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its types know nothing of asyncio
    add_HealthServicer_to_server(servicer, server)
    await servicer.set("", HealthCheckResponse.SERVING)
    await server.start()

    async def stop() -> None:
        await servicer.enter_graceful_shutdown()
        await server.stop(grace)

    try:
        registrar = client.register(service, port, **_registration(registration))
        # Before a signal ends the body: when wait_for_termination is cancelled, grpc does not wait for calls any more.
        registrar.set_shutdown_hook(stop, 2 * grace)
        async with registrar:
            yield registrar
    finally:
        await stop()


@contextmanager
def sync_serving(
    client: SyncClient, server: grpc.Server, service: str, port: int, *, grace: float = STOP_GRACE, **registration: Any
) -> Iterator[SyncRegistrar]:
    """What `serving` does, for programs without asyncio."""
    servicer = health.HealthServicer()
    add_HealthServicer_to_server(servicer, server)
    servicer.set("", HealthCheckResponse.SERVING)
    server.start()
    try:
        with client.register(service, port, **_registration(registration)) as registrar:
            yield registrar
    finally:
        servicer.enter_graceful_shutdown()
        server.stop(grace).wait()


def _registration(given: dict[str, Any]) -> dict[str, Any]:
    checked = {} if given.keys() & {"check", "checks"} else {"check": "grpc"}
    return {"scheme": "grpc", **checked, **given}


def _target(service: str, xds: str) -> str:
    validation.service_name("service", service)
    if not (os.environ.get(BOOTSTRAP_FILE_VARIABLE) or os.environ.get(BOOTSTRAP_JSON_VARIABLE)):
        found = grpc_bootstrap(xds or os.environ.get(XDS_VARIABLE, ""), os.environ.get("ADSUM_URL", ""), joined=True)
        os.environ[BOOTSTRAP_JSON_VARIABLE] = json.dumps(found)
        _reach_directly([server["server_uri"] for server in found["xds_servers"]])
    return f"xds:///{service}"


def _reach_directly(uris: Sequence[str]) -> None:
    """Keep grpc from asking a proxy for the registry: its own connections take no options of ours."""
    places = (
        place for uri in uris for place in uri.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:").split(",")
    )
    hosts = [place.rpartition(":")[0].strip("[]") for place in places]
    before = os.environ.get(NO_PROXY_VARIABLE) or os.environ.get("no_proxy") or ""
    os.environ[NO_PROXY_VARIABLE] = ",".join(filter(None, [before, *hosts]))
