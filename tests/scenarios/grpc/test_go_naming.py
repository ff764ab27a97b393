"""Adsum and Go programs that use etcd's own gRPC naming packages find one another and follow changes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from adsum.client.client import Client
from tests.scenarios.processes import JsonApi, ScenarioProcess, ScenarioSandbox, wait_until
from tests.support.etcd_process import EtcdProcess
from tests.support.programs import GO_PACKAGES, need

PROGRAM = Path(__file__).parent / "go" / "naming.go"

pytestmark = pytest.mark.timeout(400)
"""The timeout in seconds: the first test waits for Go to build."""
BUILD = ("build", "-gcflags=all=-N -l", "-ldflags=-s -w")
"""Without optimisation, Go builds in two thirds of the time."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Builds the Go program once, since one process runs all tests of this file. Go's cache speeds up the next run."""
    go = str(need("go"))
    folder = tmp_path_factory.mktemp("go")
    built = folder / "naming"
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": str(Path(GO_PACKAGES).parent), "GOFLAGS": ""}
    if "HOME" not in environ:
        environ.setdefault("GOCACHE", str(folder / "cache"))
    subprocess.run([go, *BUILD, "-o", str(built), str(PROGRAM)], check=True, env=environ, capture_output=True)
    return str(built)


@asynccontextmanager
async def grpc_server() -> AsyncIterator[int]:
    """Runs a gRPC server with a health service. Yields its port."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # it is there; the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def test_a_go_program_finds_registered_instances_and_follows_a_change(
    sandbox: ScenarioSandbox, program: str
) -> None:
    with EtcdProcess(sandbox.folder) as etcd:
        async with Client(etcd.url, cache=False) as client, grpc_server() as first, grpc_server() as second:
            one = client.register("my-service", first, id="o1", ttl=5.0)
            await one.start(10.0)
            caller = sandbox.program("caller", program, "dial", etcd.host_port, "etcd:///my-service")
            await caller.wait_for_output(f"127.0.0.1:{first}\n")
            two = client.register("my-service", second, id="o2", ttl=5.0)
            await two.start(10.0)
            await caller.wait_for_output(f"127.0.0.1:{second}\n")
            await one.drain(1.0)
            await one.stop()
            seen = len(caller.stdout)
            await wait_until_only_calls(caller, second)
            assert f"127.0.0.1:{first}\n" not in caller.stdout[seen:], "a drained instance gets no calls"
            etcd.kill()  # The program continues with what it knows, and so does the test's client.
            etcd.start()
            three = client.register("my-service", first, id="o1", ttl=5.0)
            await three.start(30.0)
            seen = len(caller.stdout)
            await wait_until(lambda: f"127.0.0.1:{first}\n" in caller.stdout[seen:])
            assert "failed" not in caller.stdout
            await asyncio.gather(two.stop(), three.stop())


@pytest.mark.parametrize(
    ("prefix", "target"),
    [
        ("", "etcd:///my-service"),
        ("services/", "etcd:///services/my-service"),
        ("/services/", "etcd:////services/my-service"),
    ],
)
async def test_a_go_program_finds_the_instances_of_a_registry_and_follows_a_drain(
    sandbox: ScenarioSandbox, program: str, prefix: str, target: str
) -> None:
    with EtcdProcess(sandbox.folder) as etcd:
        await sandbox.start_registry("", "--etcd-naming", f"{etcd.url}?prefix={prefix}")
        async with Client(sandbox.url, cache=False) as client, grpc_server() as first, grpc_server() as second:
            one = client.register("my-service", first, id="o1", scheme="grpc")
            await one.start(10.0)
            caller = sandbox.program("caller", program, "dial", etcd.host_port, target)
            await caller.wait_for_output(f"127.0.0.1:{first}\n")
            two = client.register("my-service", second, id="o2", scheme="grpc")
            await two.start(10.0)
            await caller.wait_for_output(f"127.0.0.1:{second}\n")
            await one.drain(1.0)
            await wait_until_only_calls(caller, second)
            await asyncio.gather(one.stop(), two.stop())


async def test_an_instance_of_a_go_program_is_listed_until_its_lease_is_revoked(
    sandbox: ScenarioSandbox, program: str
) -> None:
    with EtcdProcess(sandbox.folder) as etcd:
        await sandbox.start_registry("", "--etcd-naming", f"{etcd.url}?prefix=services/")
        async with (
            grpc_server() as port,
            JsonApi(sandbox.url) as api,
            Client(sandbox.url, cache=False) as registry_client,
        ):
            id = f"127.0.0.1:{port}"
            async with Client(f"{etcd.url}?prefix=services/", cache=False) as etcd_client:
                views = [client.channel("my-service").resolver for client in (registry_client, etcd_client)]
                provider = sandbox.program("provider", program, "register", etcd.host_port, "services/my-service", id)
                await provider.wait_for_output("registered")
                await api.wait_for_statuses("my-service", lambda found: found == {id: "passing"})
                await wait_until(
                    lambda: all([endpoint.id for endpoint in view.view.endpoints] == [id] for view in views)
                )
                [listed] = (await api.get("/services/my-service"))["instances"]
                assert listed["metadata"] == {"origin": "etcd-naming"}
                assert await provider.stop() == 0
                await api.wait_for_statuses("my-service", lambda found: found == {})
                await wait_until(lambda: all(not view.view.endpoints for view in views))
                changes = (await api.get("/changes", id=id))["changes"]
                reasons = {change["cause"]: change.get("reason") for change in changes}
                assert reasons == {"registered": None, "deregistered": "its key in etcd is gone"}


async def wait_until_only_calls(caller: ScenarioProcess, port: int) -> None:
    """Returns once the caller calls only that port. Fails if a call failed."""
    await wait_until(lambda: caller.stdout.splitlines()[-20:] == [f"127.0.0.1:{port}"] * 20)
    assert "failed" not in caller.stdout
