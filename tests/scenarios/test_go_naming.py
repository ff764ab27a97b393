"""A Go program that dials `etcd:///my-service` with etcd's own resolver finds what Adsum registers, and follows it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from adsum.client.client import Client
from tests.etcds import Etcd
from tests.scenarios.processes import Place, until

SOURCES = Path("/usr/share/gocode")
"""Where Debian keeps Go packages; they are built in GOPATH mode."""
PROGRAM = Path(__file__).parent / "go" / "dial.go"
WANTED = "apt-get install golang-go golang-etcd-server-dev golang-google-grpc-dev"


@pytest.fixture
def dial(tmp_path: Path) -> Path:
    """The Go program, built."""
    go = shutil.which("go")
    there = [SOURCES / "src" / each for each in ("go.etcd.io/etcd/clientv3/naming", "google.golang.org/grpc/health")]
    if go is None or not all(each.is_dir() for each in there):
        pytest.skip(f"Go, or its packages of etcd and gRPC, are not installed ({WANTED})")
    built = tmp_path / "dial"
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": str(SOURCES), "GOFLAGS": ""}
    environ.setdefault("GOCACHE", str(tmp_path / "cache"))
    subprocess.run([go, "build", "-o", str(built), str(PROGRAM)], check=True, env=environ, capture_output=True)
    return built


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of a gRPC server with a health service."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # it is there; the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.mark.timeout(400)
async def test_a_go_program_finds_what_is_registered_and_follows_a_change(place: Place, dial: Path) -> None:
    with Etcd(place.folder) as etcd:
        async with Client(etcd.url, cache=False) as client, served() as first, served() as second:
            one = client.register("my-service", first, id="o1", ttl=5.0)
            await one.start(10.0)
            program = place.program("dial", str(dial), etcd.place, "etcd:///my-service")
            await program.said(f"127.0.0.1:{first}")
            two = client.register("my-service", second, id="o2", ttl=5.0)
            await two.start(10.0)
            await program.said(f"127.0.0.1:{second}")
            await one.drain(1.0)
            await one.stop()
            told = len(program.out)
            await until(lambda: program.out[told:].count(f"127.0.0.1:{second}\n") > 20)
            assert f"127.0.0.1:{first}" not in program.out[told:], "who is drained is called no more"
            assert "failed" not in program.out
            etcd.kill()  # The program goes on by what it knows, and so do we.
            etcd.start()
            three = client.register("my-service", first, id="o1", ttl=5.0)
            await three.start(30.0)
            told = len(program.out)
            await until(lambda: f"127.0.0.1:{first}" in program.out[told:])
            assert "failed" not in program.out
            await asyncio.gather(two.stop(), three.stop())
