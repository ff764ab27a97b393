"""gRPC without a proxy: `channel("orders")` calls the live instances of a service, `serving` lists a server.

Calls go straight to instances: grpc itself follows the registry over xDS (gRFC A27), balances, and leaves out who
drains.
"""

from __future__ import annotations

import ipaddress
import json
import os
import platform
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from adsum.client.client import Client
from adsum.client.nodes import DEFAULT_URL, parse_urls
from adsum.client.registrar import Registrar
from adsum.client.sync import SyncClient, SyncRegistrar
from adsum.core import rules
from adsum.core.errors import Invalid

XDS_PORT: Final = 23787
"""Where a registry node tells gRPC clients what it knows, unless told otherwise."""
XDS_VARIABLE: Final = "ADSUM_GRPC_XDS"
"""HOST:PORT of the registry's nodes, separated by commas; without it, `XDS_PORT` at the hosts of ADSUM_URL."""
BOOTSTRAP_FILE: Final = "GRPC_XDS_BOOTSTRAP"
BOOTSTRAP: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"
"""Where grpc looks for its bootstrap: a file, or the JSON itself. If one is set already, it is left as it is."""
GRACE: Final = 10.0
"""Seconds that calls may go on after a server was told to stop; then they are cut off."""

Options = Sequence[tuple[str, Any]]


def bootstrap(xds: str = "", url: str = "") -> dict[str, Any]:
    """What a gRPC client of any language has to be told to find the registry (gRFC A27, "bootstrap file").

    `xds`: HOST:PORT of the nodes, separated by commas; else `XDS_PORT` at the hosts of `url`. Raises `Invalid`.
    """
    places = [_place(each.strip()) for each in xds.split(",") if each.strip()] or _usual(url or DEFAULT_URL)
    # All of several addresses are tried; of names only the first can be.
    target = f"{_family(places)}{','.join(places)}" if _family(places) else f"dns:///{places[0]}"
    server = {"server_uri": target, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
    return {"xds_servers": [server], "node": {"id": f"{platform.node()}-{os.getpid()}"}}


def channel(service: str, *, xds: str = "", options: Options = ()) -> grpc.aio.Channel:
    """A channel to the live instances of a service; needs no network to be made. Raises `Invalid`.

    The first channel of a process settles which registry all of them ask: `xds`, else ADSUM_GRPC_XDS, else port 23787
    at the hosts of ADSUM_URL. Calls to a service that nobody has registered fail at once with UNAVAILABLE.
    """
    return grpc.aio.insecure_channel(_target(service, xds), options=list(options))


def sync_channel(service: str, *, xds: str = "", options: Options = ()) -> grpc.Channel:
    """What `channel` gives, for programs without asyncio. grpc must not be forked: make it after a fork."""
    return grpc.insecure_channel(_target(service, xds), options=list(options))


@asynccontextmanager
async def serving(
    client: Client, server: grpc.aio.Server, service: str, port: int, *, grace: float = GRACE, **registration: Any
) -> AsyncIterator[Registrar]:
    """Start a server, its health service with it, and keep it listed until the block ends.

    Then it is drained (nobody who follows the registry calls it any more), deregistered, says that it is not serving,
    and stops: calls that run have `grace` seconds. `registration` is what `Client.register` takes; its check is `grpc`
    and its scheme `grpc` unless told otherwise. Raises what `Client.register` raises.
    """
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its types know nothing of asyncio
    add_HealthServicer_to_server(servicer, server)
    await servicer.set("", HealthCheckResponse.SERVING)
    await server.start()
    try:
        async with client.register(service, port, **_registration(registration)) as registrar:
            yield registrar
    finally:
        await servicer.enter_graceful_shutdown()
        await server.stop(grace)


@contextmanager
def sync_serving(
    client: SyncClient, server: grpc.Server, service: str, port: int, *, grace: float = GRACE, **registration: Any
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
    rules.service_name("service", service)
    if not (os.environ.get(BOOTSTRAP_FILE) or os.environ.get(BOOTSTRAP)):
        found = bootstrap(xds or os.environ.get(XDS_VARIABLE, ""), os.environ.get("ADSUM_URL", ""))
        os.environ[BOOTSTRAP] = json.dumps(found)
    return f"xds:///{service}"


def _place(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535):
        raise Invalid("xds", f"must be HOST:PORT, several separated by commas, not {rules.shown(text)}")
    return text


def _usual(url: str) -> list[str]:
    hosts = dict.fromkeys(urlsplit(each).hostname or "" for each in parse_urls(url))
    return [f"[{host}]:{XDS_PORT}" if ":" in host else f"{host}:{XDS_PORT}" for host in hosts]


def _family(places: Sequence[str]) -> str:
    """The scheme under which grpc takes several addresses; "" if they are not all of one kind."""
    versions = set()
    for place in places:
        try:
            versions.add(ipaddress.ip_address(place.rpartition(":")[0].strip("[]")).version)
        except ValueError:
            return ""
    return f"ipv{versions.pop()}:" if len(versions) == 1 else ""
