"""The contract of every source: the client works in the same way on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from adsum.client.client import Client
from adsum.client.registration.registrar_state import RegistrarState
from adsum.client.sources.source import ViewPosition
from adsum.client.views.resolver import Resolver
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.config.serve import ServeConfig
from adsum.core.model import Endpoint, Instance, Status
from tests.client.fakes import endpoint, ids
from tests.client.stub_node import until
from tests.support.etcd_process import EtcdProcess
from tests.support.fake_consul import FakeConsulAgent
from tests.support.registry_daemon import RunningDaemon

TTL = 2.0


class InstanceSource(Protocol):
    """A registry, an etcd or a Consul agent."""

    url: str

    async def stop(self) -> None: ...

    async def restart(self) -> None:
        """Starts again, with all state lost."""
        ...

    async def close(self) -> None: ...


class RegistryInstanceSource:
    def __init__(self) -> None:
        self._daemon = self._run(0)
        self.url = self._daemon.url

    @staticmethod
    def _run(port: int) -> RunningDaemon:
        return RunningDaemon(ServeConfig(listen=f"127.0.0.1:{port}", xds="off", store="memory:", node="test"))

    async def stop(self) -> None:
        await asyncio.to_thread(self._daemon.stop)

    async def restart(self) -> None:
        self._daemon = await asyncio.to_thread(self._run, int(self.url.rpartition(":")[2]))

    async def close(self) -> None:
        await asyncio.to_thread(self._daemon.stop)


class EtcdInstanceSource:
    def __init__(self, folder: Path) -> None:
        self._etcd = EtcdProcess(folder).__enter__()
        self.url = self._etcd.url

    async def stop(self) -> None:
        self._etcd.kill()

    async def restart(self) -> None:
        self._etcd.wipe()
        self._etcd.start()

    async def close(self) -> None:
        self._etcd.__exit__(None, None, None)


class ConsulInstanceSource:
    def __init__(self, agent: FakeConsulAgent) -> None:
        self._agent = agent
        self.url = agent.url

    async def stop(self) -> None:
        await self._agent.stop()

    async def restart(self) -> None:
        await self._agent.restore(3)
        await self._agent.start()

    async def close(self) -> None:
        await self._agent.stop()


@pytest.fixture(params=["registry", "etcd", "consul"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[InstanceSource]:
    source: InstanceSource
    if request.param == "consul":
        agent = FakeConsulAgent()
        await agent.start()
        source = ConsulInstanceSource(agent)
    else:
        source = RegistryInstanceSource() if request.param == "registry" else EtcdInstanceSource(tmp_path)
    yield source
    await source.close()


async def seen(resolver: Resolver, *wanted: str) -> None:
    await until(lambda: resolver.connected and ids(resolver) == set(wanted))


async def test_an_instance_is_found_as_it_was_registered(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as provider, Client(source.url, cache=False) as consumer:
        resolver, other = consumer.resolver("orders"), consumer.resolver("orders-admin")
        registrar = provider.register(
            "orders",
            8001,
            id="o1",
            address="10.0.0.1",
            scheme="grpc",
            zone="z1",
            weight=3,
            tags=["a", "b"],
            metadata={"version": "2", "team": "x"},
            ttl=TTL,
            drain_wait=0.0,
        )
        async with registrar, provider.register("orders-admin", 9001, id="a1", ttl=TTL, drain_wait=0.0):
            await seen(resolver, "o1")
            await seen(other, "a1")
            assert [(endpoint.instance, endpoint.status) for endpoint in resolver.view.endpoints] == [
                (
                    Instance(
                        "orders",
                        "o1",
                        "10.0.0.1",
                        8001,
                        scheme="grpc",
                        zone="z1",
                        weight=3,
                        tags=("a", "b"),
                        metadata={"version": "2", "team": "x"},
                    ),
                    Status.PASSING,
                )
            ]
        await seen(resolver)
        await seen(other)


async def test_a_lease_is_kept_for_longer_than_its_ttl(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as client, client.register("orders", 8001, id="o1", ttl=TTL):
        resolver = client.resolver("orders")
        await seen(resolver, "o1")
        await asyncio.sleep(2 * TTL)
        assert [endpoint.status for endpoint in resolver.view.endpoints] == [Status.PASSING]


async def test_a_drained_instance_is_not_called_and_renewals_do_not_bring_it_back(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as client:
        channel = client.channel("orders")
        one = client.register("orders", 8001, id="o1", ttl=TTL)
        async with one, client.register("orders", 8002, id="o2", ttl=TTL):
            await channel.ready(20.0)
            await seen(channel.resolver, "o1", "o2")
            await one.drain(5.0)
            for _ in range(2):
                assert {channel.pick().endpoint.id for _ in range(50)} == {"o2"}
                await asyncio.sleep(TTL)


async def test_a_changed_registration_replaces_the_earlier_one(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as client:
        resolver = client.resolver("orders")
        async with client.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
            await seen(resolver, "o1")
            async with client.register("orders", 8002, id="o1", ttl=TTL, drain_wait=0.0):
                await until(lambda: [endpoint.port for endpoint in resolver.view.endpoints] == [8002])


@pytest.mark.parametrize("ttl", [TTL, None])
async def test_a_later_registration_at_the_same_place_takes_over_and_the_earlier_one_does_not_remove_it(
    source: InstanceSource, ttl: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.client.registration.renewals.MAX_RENEWED_TTL", TTL)
    async with Client(source.url, cache=False) as first, Client(source.url, cache=False) as second:
        resolver = second.resolver("orders")
        earlier = first.register("orders", 8001, id="o1", ttl=ttl, drain_wait=0.0)
        short_lived = first.register("orders", 8002, id="o2", ttl=ttl, drain_wait=0.0)
        await earlier.start(10.0)
        await short_lived.start(10.0)
        views: set[frozenset[str]] = set()
        async with (
            second.register("orders", 8001, id="o1", ttl=ttl, drain_wait=0.0),
            second.register("orders", 8002, id="o2", ttl=ttl, drain_wait=0.0),
        ):
            await seen(resolver, "o1", "o2")
            resolver.subscribe(lambda view: views.add(frozenset(endpoint.id for endpoint in view.endpoints)))
            await short_lived.stop("before it has noticed the take-over")
            await until(lambda: earlier.state is RegistrarState.WAITING)
            await earlier.stop()
            # A registration that is made now is seen after the requests of those two.
            async with second.register("orders", 8003, id="o3", ttl=ttl, drain_wait=0.0):
                await seen(resolver, "o1", "o2", "o3")
            assert all({"o1", "o2"} <= listed for listed in views)
        await seen(resolver)


@pytest.mark.parametrize("ttl", [TTL, None])
async def test_two_processes_at_one_place_never_alternate_and_the_loser_returns_when_it_is_free(
    source: InstanceSource, ttl: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.client.registration.renewals.MAX_RENEWED_TTL", TTL)
    async with Client(source.url, cache=False) as first, Client(source.url, cache=False) as second:
        resolver = second.resolver("orders")
        earlier = first.register("orders", 8001, id="o1", address="127.0.0.1", ttl=ttl, drain_wait=0.0)
        await earlier.start(10.0)
        await seen(resolver, "o1")
        processes: list[str] = []
        resolver.subscribe(lambda view: processes.extend(endpoint.holder_digest for endpoint in view.endpoints))
        async with second.register("orders", 8001, id="o1", address="127.0.0.1", ttl=ttl, drain_wait=0.0) as later:
            await until(lambda: earlier.state is RegistrarState.WAITING and bool(earlier.conflict))
            assert "http://127.0.0.1:8001" in earlier.conflict
            await asyncio.sleep(2 * TTL)  # The earlier one tries several times.
            assert later.registered
            assert len(set(processes)) <= 2, "the earlier process, then the later one"
        await until(lambda: earlier.registered)
        await seen(resolver, "o1")
        await earlier.stop()


async def test_the_id_of_a_live_process_elsewhere_is_taken_when_that_stops_answering(source: InstanceSource) -> None:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with Client(source.url, cache=False) as first, Client(source.url, cache=False) as second:
        living = first.register("orders", port, id="o1", address="127.0.0.1", ttl=60.0, drain_wait=0.0)
        await living.start(10.0)
        resolver = second.resolver("orders")
        other = second.register("orders", 1, id="o1", address="127.0.0.1", ttl=TTL, drain_wait=0.0)
        await other.start(10.0)
        assert other.state is RegistrarState.WAITING
        assert f"http://127.0.0.1:{port}" in other.conflict
        assert "http://127.0.0.1:1 " in other.conflict
        assert "takeover=force" in other.conflict
        assert [endpoint.port for endpoint in resolver.view.endpoints or await _first(resolver)] == [port]
        listening.close()
        await listening.wait_closed()
        await until(lambda: other.registered)
        await until(lambda: [endpoint.port for endpoint in resolver.view.endpoints] == [1])
        await other.stop()


async def test_take_over_takes_the_id_of_a_live_process(source: InstanceSource) -> None:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with Client(source.url, cache=False) as first, Client(source.url, cache=False) as second:
        living = first.register("orders", port, id="o1", address="127.0.0.1", ttl=TTL, drain_wait=0.0)
        await living.start(10.0)
        async with second.register(
            "orders", 1, id="o1", address="127.0.0.1", ttl=TTL, drain_wait=0.0, take_over=True
        ) as other:
            await until(lambda: living.state is RegistrarState.WAITING)
            assert other.registered
        await until(lambda: living.registered)
        await living.stop()
    listening.close()


async def _first(resolver: Resolver) -> tuple[Endpoint, ...]:
    await seen(resolver, "o1")
    return resolver.view.endpoints


async def test_of_two_registrars_of_one_program_with_one_id_the_later_one_counts(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as client:
        resolver = client.resolver("orders")
        earlier = client.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0)
        await earlier.start(10.0)
        async with client.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0) as later:
            await until(lambda: earlier.state is RegistrarState.SUPERSEDED)
            await earlier.stop()
            await asyncio.sleep(TTL)
            assert (later.state, ids(resolver)) == (RegistrarState.REGISTERED, {"o1"})
        await seen(resolver)


async def test_views_stay_during_an_outage_and_registrations_come_back_by_themselves(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as provider, Client(source.url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        lengths: set[int] = set()
        async with provider.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0) as registrar:
            await seen(resolver, "o1")
            watching = asyncio.create_task(_note(resolver, lengths))
            await source.stop()
            await until(lambda: not resolver.connected)
            await asyncio.sleep(2 * TTL)
            await source.restart()
            async with Client(source.url, cache=False) as newcomer:
                await seen(newcomer.resolver("orders"), "o1")
            await seen(resolver, "o1")
            await until(lambda: registrar.registered)
            watching.cancel()
        assert lengths == {1}


async def _note(resolver: Resolver, lengths: set[int]) -> None:
    async for view in resolver.watch():
        lengths.add(len(view.endpoints))


async def test_a_registration_during_an_outage_is_listed_as_soon_as_the_source_is_back(source: InstanceSource) -> None:
    await source.stop()
    async with Client(source.url, cache=False) as client:
        registrar = client.register("orders", 8001, id="o1", address="10.0.0.1", ttl=TTL, drain_wait=0.0)
        await registrar.start(0.2)
        assert not registrar.registered
        resolver = client.resolver("orders")
        await source.restart()
        await seen(resolver, "o1")
        await registrar.stop()


async def test_an_unregistered_service_has_an_empty_view(source: InstanceSource) -> None:
    async with Client(source.url, cache=False) as client:
        await seen(client.resolver("unknown"))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9",
        "http://127.0.0.1:9,http://127.0.0.1:7",
        "etcd://127.0.0.1:9",
        "etcd://127.0.0.1:9,127.0.0.1:7",
        "consul://127.0.0.1:9",
    ],
)
async def test_a_cached_view_is_used_soon_when_the_source_does_not_answer(url: str, tmp_path: Path) -> None:
    client = Client(url, cache=tmp_path)
    ViewCache(tmp_path, client.urls).save("orders", CachedView(ViewPosition("e1", 4), (endpoint("kept"),), time.time()))
    async with client, asyncio.timeout(client.source.cache_fallback_delay + 2.0):
        channel = client.channel("orders")
        await channel.ready()
        assert (channel.pick().endpoint.id, channel.resolver.view.origin) == ("kept", "disk")


async def test_the_cache_fallback_delay_is_half_a_second_for_each_node() -> None:
    for url, delay in (("http://a:1,http://b:1,http://c:1", 1.5), ("etcd://a,b", 1.0), ("consul://a", 0.5)):
        assert Client(url, cache=False).source.cache_fallback_delay == delay
