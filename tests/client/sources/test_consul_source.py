"""The client on a Consul agent, without a registry."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from adsum.client.client import Client
from adsum.client.errors import RegistryRefused
from adsum.core.errors import Invalid
from adsum.core.model import Status
from tests.client.fakes import ids
from tests.client.stub_node import until
from tests.support.fake_consul import FakeConsulAgent
from tests.support.programs import need

TTL = 1.5


@pytest.fixture
async def agent() -> AsyncIterator[FakeConsulAgent]:
    agent = FakeConsulAgent()
    await agent.start()
    yield agent
    await agent.stop()


async def test_an_instance_on_the_agents_host_has_the_agents_address(agent: FakeConsulAgent) -> None:
    async with Client(agent.url, cache=False) as client, client.register("orders", 8001, id="o1", drain_wait=0.0):
        assert agent.services["orders:o1"].body["Address"] == "127.0.0.9"


async def test_instances_of_other_consul_clients_are_found(agent: FakeConsulAgent) -> None:
    await agent.add_service("orders", "x", 9000, Address="10.0.0.5", Tags=["blue"])
    async with Client(agent.url, cache=False) as client:
        resolver = client.resolver("orders")
        await until(lambda: ids(resolver) == {"x@n1"})
        await agent.add_service("orders", "y", 9001)
        await until(lambda: ids(resolver) == {"x@n1", "y@n1"})
        authorities = {endpoint.authority for endpoint in resolver.view.endpoints}
        assert authorities == {"10.0.0.5:9000", "10.9.8.7:9001"}, "an instance without an address has its node's"


async def test_a_blocking_query_waits_for_a_change_and_is_rate_limited(agent: FakeConsulAgent) -> None:
    async with Client(agent.url, cache=False) as client:
        resolver = client.resolver("orders")
        await until(lambda: len(agent.queries) == 2)
        assert agent.queries[1] == {"index": "10", "wait": "30s"}
        for n in range(60):
            await agent.add_service("orders", f"x{n}", 9000 + n)
            await asyncio.sleep(0.01)
        await until(lambda: len(ids(resolver)) == 60)
        assert len(agent.queries) < 30, "answers combine changes"
        indexes = [query.get("index", "") for query in agent.queries]
        assert len(set(indexes)) == len(indexes), "no query is repeated without a change"


async def test_an_instance_that_stops_renewing_is_critical_until_it_renews_again(agent: FakeConsulAgent) -> None:
    async with Client(agent.url, cache=False) as provider, Client(agent.url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        registrar = provider.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0)
        await registrar.start(10.0)
        await until(lambda: [endpoint.status for endpoint in resolver.view.endpoints] == [Status.PASSING])
        (check,) = agent.services["orders:o1"].checks.values()
        check.until = 0.0
        await until(lambda: [endpoint.status for endpoint in resolver.view.endpoints] == [Status.CRITICAL])
        await until(lambda: [endpoint.status for endpoint in resolver.view.endpoints] == [Status.PASSING])
        await registrar.stop()


@pytest.mark.parametrize("old", [False, True])
async def test_an_instance_is_registered_again_when_the_agent_lost_it(old: bool) -> None:
    agent = FakeConsulAgent(old=old)
    await agent.start()
    async with Client(agent.url, cache=False) as provider, Client(agent.url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        async with provider.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
            await until(lambda: ids(resolver) == {"o1"})
            await agent.restore(3)
            await until(lambda: "orders:o1" in agent.services)
            assert ids(resolver) == {"o1"}, "an index that went back begins a new history and removes nothing"
            await until(lambda: resolver.view.epoch == "consul-1" and ids(resolver) == {"o1"})
    await agent.stop()


async def test_a_drain_removes_the_instance_and_reports_that_it_is_unacknowledged(agent: FakeConsulAgent) -> None:
    async with Client(agent.url, cache=False) as client:
        resolver = client.resolver("orders")
        registrar = client.register("orders", 8001, id="o1", ttl=TTL)
        await registrar.start(10.0)
        await until(lambda: ids(resolver) == {"o1"})
        drained = await registrar.drain(1.0)
        assert (drained.done, "none can acknowledge" in drained.reason) == (False, True)
        assert [endpoint.status for endpoint in resolver.view.endpoints] == [Status.DRAINING]
        await asyncio.sleep(TTL)
        assert [endpoint.status for endpoint in resolver.view.endpoints] == [Status.DRAINING]
        await registrar.stop()


async def test_the_token_is_sent_and_a_missing_permission_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = FakeConsulAgent("s3cret")
    await agent.start()
    async with Client(agent.url, cache=False) as client:
        with pytest.raises(RegistryRefused, match="Permission denied"):
            await client.register("orders", 8001, address="10.0.0.1").start(10.0)
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "s3cret")
    async with Client(agent.url, cache=False) as client, client.register("orders", 8001, drain_wait=0.0):
        assert agent.services
    assert "s3cret" not in caplog.text
    await agent.stop()


async def test_an_instance_without_a_ttl_is_registered_again_when_it_is_lost(
    agent: FakeConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.client.registration.renewals.MAX_RENEWED_TTL", 1.0)
    async with Client(agent.url, cache=False) as client, client.register("orders", 8001, ttl=None, drain_wait=0.0):
        agent.services.clear()
        await until(lambda: bool(agent.services))


async def test_a_cached_view_survives_an_agent_that_lost_everything(agent: FakeConsulAgent, tmp_path: Path) -> None:
    await agent.add_service("orders", "x", 9000)
    async with Client(agent.url, cache=tmp_path) as client:
        resolver = client.resolver("orders")
        await until(lambda: ids(resolver) == {"x@n1"})
        await until(lambda: any(file.is_file() and b"9000" in file.read_bytes() for file in tmp_path.rglob("*")))
    await agent.restore(2)
    async with Client(agent.url, cache=tmp_path) as client:
        resolver = client.resolver("orders")
        await until(lambda: resolver.connected)
        assert ids(resolver) == {"x@n1"}
        assert resolver.view.epoch == "consul-1"


async def test_another_http_server_is_reported_as_not_consul() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Client(f"consul://127.0.0.1:{port}", cache=False) as client:
        resolver = client.resolver("orders")
        await until(lambda: "not from Consul" in resolver.problem)
    server.close()


def test_several_agents_are_refused() -> None:
    with pytest.raises(Invalid, match="one agent"):
        Client("consul://a,b")


@pytest.fixture
def consul() -> Iterator[str]:
    """The address of a real Consul agent."""
    program = str(need("consul"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    off = ["-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1"]
    argv = [program, "agent", "-dev", "-bind=127.0.0.1", f"-http-port={port}", *off]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(20.0)


async def test_an_instance_passes_and_drains_on_a_real_consul(consul: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{consul}", trust_env=False) as http, asyncio.timeout(30.0):
        has_leader = False
        while not has_leader:
            await asyncio.sleep(0.1)
            with suppress(httpx.HTTPError):
                has_leader = bool((await http.get("/v1/status/leader")).text.strip('"\n'))
    url = f"consul://{consul}"
    async with Client(url, cache=False) as provider, Client(url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        registrar = provider.register("orders", 8001, id="o1", ttl=TTL, tags=["a"], metadata={"v": "2"})
        await registrar.start(10.0)
        await until(lambda: [endpoint.status for endpoint in resolver.view.endpoints] == [Status.PASSING])
        await asyncio.sleep(2 * TTL)
        assert [endpoint.status for endpoint in resolver.view.endpoints] == [Status.PASSING]
        await registrar.drain(1.0)
        await until(lambda: [endpoint.status for endpoint in resolver.view.endpoints] == [Status.DRAINING])
        await registrar.stop()
        await until(lambda: not ids(resolver))
