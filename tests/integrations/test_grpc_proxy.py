"""gRPC channels connect directly to the registry and to instances, whatever proxy the environment names."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from adsum import Client
from adsum.config.serve import ServeConfig
from tests.support.registry_daemon import RunningDaemon

CALL = """
import sys
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from adsum.integrations.grpc import sync_channel
with sync_channel("orders", xds=sys.argv[1]) as channel:
    print(HealthStub(channel).Check(HealthCheckRequest(), timeout=30, wait_for_ready=True).status)
"""


@pytest.fixture
def node() -> Iterator[RunningDaemon]:
    running = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="127.0.0.1:0", store="memory:", node="test"))
    yield running
    running.stop()


async def test_no_proxy_of_the_environment_is_used(node: RunningDaemon) -> None:
    server = grpc.aio.server()
    add_HealthServicer_to_server(health.aio.HealthServicer(), server)  # type: ignore[attr-defined]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(node.url, cache=False) as client, client.register("orders", port, scheme="grpc"):
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:1")
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        argv = [sys.executable, "-c", CALL, node.xds]
        done = await asyncio.to_thread(
            subprocess.run, argv, env=environ | proxies, capture_output=True, text=True, check=False
        )
    await server.stop(0)
    assert done.stdout == "1\n", done.stderr
