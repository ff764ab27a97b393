"""gRPC without a proxy: `channel("orders")` calls the live instances of a service, `serving` registers a server.

Calls go straight to instances. grpc itself follows the registry over xDS (gRFC A27), balances, and avoids draining
instances.
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
"""HOST:PORT of the registry's nodes, separated by commas. By default those of the registry that this host has joined,
else port 23787 at the hosts of ADSUM_URL."""
BOOTSTRAP_FILE_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP"
BOOTSTRAP_JSON_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"
"""The variables in which grpc looks for its bootstrap: a file, or the JSON itself. If one is set, it stays as it is."""
STOP_GRACE: Final = 10.0
"""Seconds that calls in progress have to finish once a server stops; then they are cut off."""

NO_PROXY_VARIABLE: Final = "no_grpc_proxy"
"""The hosts that grpc reaches without the environment's proxy. grpc reads it before `no_proxy`."""
_DIRECT: Final = (("grpc.enable_http_proxy", 0),)
"""Instances are reached directly: a proxy does not know them."""

Options = Sequence[tuple[str, Any]]


def channel(service: str, *, xds: str = "", options: Options = ()) -> grpc.aio.Channel:
    """Returns a channel to the live instances of a service. Needs no network. Raises `Invalid`.

    The first channel of a process sets the registry for all: `xds`, else ADSUM_GRPC_XDS, else the one that this host
    has joined (over TLS, with its certificate), else port 23787 at the hosts of ADSUM_URL. Calls to a service
    without any instance fail at once with UNAVAILABLE.
    """
    return grpc.aio.insecure_channel(_target(service, xds), options=[*_DIRECT, *options])


def sync_channel(service: str, *, xds: str = "", options: Options = ()) -> grpc.Channel:
    """Like `channel`, for programs without asyncio. grpc does not survive a fork: create the channel after it."""
    return grpc.insecure_channel(_target(service, xds), options=[*_DIRECT, *options])


@asynccontextmanager
async def serving(
    client: Client, server: grpc.aio.Server, service: str, port: int, *, grace: float = STOP_GRACE, **registration: Any
) -> AsyncIterator[Registrar]:
    """Starts a server with its health service, and keeps it registered until the block ends.

    Then the instance drains (no consumer that follows the registry calls it any more) and is deregistered, the health
    service reports that it is not serving, and the server stops; calls in progress have `grace` seconds. SIGTERM and
    SIGINT do the same before they end the block. `registration` is what `Client.register` takes; by default its check
    is `grpc` and its scheme `grpc`. Raises what `Client.register` raises.
    """
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its type stubs lack asyncio
    add_HealthServicer_to_server(servicer, server)
    await servicer.set("", HealthCheckResponse.SERVING)
    await server.start()

    async def stop() -> None:
        await servicer.enter_graceful_shutdown()
        await server.stop(grace)

    try:
        registrar = client.register(service, port, **_registration(registration))
        # The hook runs before a signal ends the block: once wait_for_termination is cancelled, grpc waits for no calls.
        registrar.set_shutdown_hook(stop, 2 * grace)
        async with registrar:
            yield registrar
    finally:
        await stop()


@contextmanager
def sync_serving(
    client: SyncClient, server: grpc.Server, service: str, port: int, *, grace: float = STOP_GRACE, **registration: Any
) -> Iterator[SyncRegistrar]:
    """Like `serving`, for programs without asyncio."""
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


def _registration(options: dict[str, Any]) -> dict[str, Any]:
    default_check = {} if options.keys() & {"check", "checks"} else {"check": "grpc"}
    return {"scheme": "grpc", **default_check, **options}


def _target(service: str, xds: str) -> str:
    validation.service_name("service", service)
    if not (os.environ.get(BOOTSTRAP_FILE_VARIABLE) or os.environ.get(BOOTSTRAP_JSON_VARIABLE)):
        bootstrap = grpc_bootstrap(
            xds or os.environ.get(XDS_VARIABLE, ""), os.environ.get("ADSUM_URL", ""), joined=True
        )
        os.environ[BOOTSTRAP_JSON_VARIABLE] = json.dumps(bootstrap)
        _bypass_proxy([server["server_uri"] for server in bootstrap["xds_servers"]])
    return f"xds:///{service}"


def _bypass_proxy(uris: Sequence[str]) -> None:
    """Makes grpc connect to the registry without a proxy, since its xDS connections take no options of ours."""
    addresses = (
        address
        for uri in uris
        for address in uri.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:").split(",")
    )
    hosts = [address.rpartition(":")[0].strip("[]") for address in addresses]
    previous = os.environ.get(NO_PROXY_VARIABLE) or os.environ.get("no_proxy") or ""
    os.environ[NO_PROXY_VARIABLE] = ",".join(filter(None, [previous, *hosts]))
