"""The client against a real registry."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from adsum.client.client import Client
from adsum.client.errors import RegistryUnavailable
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid, LeaseLost, UnknownInstance
from adsum.core.model import Instance, Key, Registration
from adsum.wire import LeaseBody, NamedRegistrationBody
from tests.client.stub_node import hung_node, until
from tests.support.registry_daemon import RunningDaemon


async def test_a_registered_instance_is_picked_until_it_drains(daemon: RunningDaemon) -> None:
    async with Client(daemon.url, cache=False) as provider, Client(daemon.url, cache=False) as consumer:
        channel = consumer.channel("orders")
        async with provider.register("orders", 8000, id="o1") as one, provider.register("orders", 8001, id="o2"):
            await channel.ready()
            await until(lambda: channel.usable_count == 2)
            drained = await one.drain(10.0, "deploy")
            assert drained.done
            assert {channel.pick().endpoint.id for _ in range(20)} == {"o2"}, "at once, without waiting"
        await until(lambda: channel.usable_count == 0)
    assert daemon.registry.snapshot.instance_count == 0


async def test_a_program_follows_its_services_over_one_stream_and_a_drain_waits_for_each_by_itself(
    daemon: RunningDaemon,
) -> None:
    services = [f"service-{number}" for number in range(5)]
    watches = daemon.registry.watches
    async with Client(daemon.url, cache=False) as provider, Client(daemon.url, cache=False) as consumer:
        registrars = [provider.register(service, 8000, id="i1") for service in services]
        for registrar in registrars:
            await registrar.start()
        channels = [consumer.channel(service) for service in services[:2]]
        for service in services[2:]:  # They join while the stream lives.
            channels.append(consumer.channel(service))
            await channels[-1].ready(timeout=10.0)
        for channel in channels:
            await channel.ready(timeout=10.0)
        assert (watches.count, watches.watched_services) == (1, 5)
        assert (await registrars[0].drain(10.0)).done
        await until(lambda: channels[0].usable_count == 0)
        assert [channel.usable_count for channel in channels[1:]] == [1] * 4
        await channels[1].close()
        await until(lambda: watches.watched_services == 4)
        again = consumer.channel(services[1])
        await again.ready(timeout=10.0)
        assert (watches.count, watches.watched_services) == (1, 5)
        assert (await registrars[1].drain(10.0)).done
        await until(lambda: again.usable_count == 0)
    await until(lambda: watches.count == 0)


async def test_an_instance_on_this_host_is_listed_under_loopback(daemon: RunningDaemon) -> None:
    async with Client(daemon.url, cache=False) as client, client.register("orders", 8000, id="o1"):
        listing = daemon.registry.snapshot.find(Key("orders", "o1"))
        assert listing is not None
        assert listing.instance.authority == "127.0.0.1:8000"


async def test_the_view_outlives_the_registry_and_a_new_program_starts_from_the_cache(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    async with Client(daemon.url, cache=tmp_path) as client:
        registrar = client.register("orders", 8000, id="o1")
        await registrar.start()
        channel = client.channel("orders")
        await channel.ready()
        await asyncio.to_thread(daemon.stop)
        await until(lambda: not channel.resolver.connected)
        assert channel.pick().endpoint.id == "o1"
    async with Client(daemon.url, cache=tmp_path) as newcomer:
        channel = newcomer.channel("orders")
        await channel.ready()
        assert channel.pick().endpoint.id == "o1"
        assert channel.resolver.view.origin == "disk"
        assert channel.resolver.view.age() < 100.0


async def test_a_registry_that_comes_back_empty_removes_no_endpoint_and_lists_the_instance_again(
    daemon: RunningDaemon,
) -> None:
    async with Client(daemon.url, cache=False) as client:
        registrar = client.register("orders", 8000, id="o1", ttl=1.5)
        async with registrar:
            channel = client.channel("orders")
            await channel.ready()
            before = channel.resolver.view.epoch
            await asyncio.to_thread(daemon.stop)
            await until(lambda: not channel.resolver.connected)
            config = ServeConfig(listen=daemon.url.removeprefix("http://"), xds="off", store="memory:", node="test")
            again = await asyncio.to_thread(RunningDaemon, config)
            try:
                await until(lambda: channel.resolver.view.epoch not in ("", before))
                assert channel.usable_count == 1
                await until(lambda: again.registry.snapshot.instance_count == 1 and registrar.registered)
                await registrar.stop()
            finally:
                await asyncio.to_thread(again.stop)


async def test_a_dead_node_does_not_stop_the_watch(daemon: RunningDaemon) -> None:
    dead = "http://127.0.0.1:9"
    async with Client([dead, daemon.url], cache=False) as client, client.register("orders", 8000, id="o1"):
        channel = client.channel("orders")
        await channel.ready(timeout=20.0)
        assert client.api.nodes.order(0.0) == [daemon.url, dead]


async def test_every_call_of_the_api_is_answered(daemon: RunningDaemon) -> None:
    async with Client(daemon.url, cache=False, actor="tester") as client:
        await client.register("orders", 8000, id="o1", zone="z1", tags=["blue"], metadata={"v": "2"}).start()
        await client.register("orders", 8001, id="o2").start()
        api = client.api
        assert [(service.name, service.instances) for service in (await api.services()).services] == [("orders", 2)]
        assert {instance.id for instance in (await api.service("orders")).instances} == {"o1", "o2"}
        filtered = await api.service("orders", status=["passing"], tag=["blue"], zone="z1", metadata={"v": "2"})
        assert [instance.id for instance in filtered.instances] == ["o1"]
        detail = await api.instance("orders", "o1")
        assert (detail.instance.claimed, detail.lease) == ("tester", "held")
        assert (await api.status()).instances == 2
        renewed = await api.renew([LeaseBody("orders", "o1"), LeaseBody("orders", "unknown")])
        assert (renewed.renewed, [lost.reason for lost in renewed.lost]) == (1, ["unknown"])
        assert (await api.resume("orders", "o1")).epoch
        assert (await api.changes("orders")).epoch
        with pytest.raises(UnknownInstance):
            await api.instance("orders", "unknown")
        with pytest.raises(LeaseLost):
            await api.deregister("orders", "o1", holder="another process")
        with pytest.raises(Invalid) as refused:
            await client.register("orders", 8003, id="o3", address="169.254.169.254", check="tcp").start()
        assert "address" in refused.value.field
        await asyncio.to_thread(daemon.stop)
        with pytest.raises(RegistryUnavailable):
            await api.services()


async def test_many_instances_are_registered_in_one_request(daemon: RunningDaemon) -> None:
    bodies = [
        NamedRegistrationBody.from_registration(Registration(Instance("orders", f"o{n}", "127.0.0.1", 8000 + n)))
        for n in range(1_000)
    ]
    bodies[7] = NamedRegistrationBody(service="orders", id="o7", port=80, address="169.254.169.254")
    async with Client(daemon.url, cache=False) as client:
        result = await client.api.register_many(bodies)
        assert result.registered == 999
        assert {answer.status for number, answer in enumerate(result.answers) if number != 7} == {201}
        refused = result.answers[7].problem
        assert refused is not None
        assert refused.field == "registrations[7].address"
        renewed = await client.api.renew([LeaseBody("orders", f"o{n}") for n in range(1_000)])
        assert [lost.id for lost in renewed.lost] == ["o7"]


NEWCOMER = """
import asyncio, sys, adsum

async def main():
    async with adsum.Client(sys.argv[1], cache=sys.argv[2]) as client:
        channel = client.channel("orders")
        await channel.ready()
        print(channel.pick().endpoint.id, channel.resolver.view.origin)

asyncio.run(main())
"""


async def newcomer(url: str, cache: Path) -> str:
    """Returns the output of a program that starts, picks once, and ends."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NEWCOMER, url, str(cache), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60.0):
        out, _ = await child.communicate()
    return out.decode().strip()


async def test_short_lived_programs_see_the_current_registrations(daemon: RunningDaemon, tmp_path: Path) -> None:
    async with Client(daemon.url, cache=False) as client:
        for number in range(3):
            async with client.register("orders", 8000 + number, id=f"o{number}", drain_wait=0.0):
                assert await newcomer(daemon.url, tmp_path) == f"o{number} live"
        await client.register("orders", 8009, id="last").start()
        assert await newcomer(daemon.url, tmp_path) == "last live"
    await asyncio.to_thread(daemon.stop)
    assert await newcomer(daemon.url, tmp_path) == "last disk", "the last program left a fresh view"


async def test_a_program_that_starts_while_one_of_two_nodes_hangs_is_ready_soon(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    async with (
        Client(daemon.url, cache=False) as provider,
        provider.register("orders", 8000, id="o1"),
        hung_node() as hung,
    ):
        for seed in range(6):  # Each node is the first one for some seeds.
            async with Client([hung, daemon.url], cache=tmp_path, rng=Random(seed)) as client:
                async with asyncio.timeout(1.5):
                    await client.channel("orders").ready()
                    async with client.register("users", 8001, id="u1", drain_wait=0.0) as registrar:
                        assert registrar.registered
                assert client.resolver("orders").view.origin == "live"


async def test_a_late_goodbye_does_not_end_a_consumer_that_follows_the_service_again(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(daemon.url, cache=False) as provider, Client(daemon.url, cache=False, name="shop") as consumer:
        registrar = provider.register("orders", 8000, id="o1", signals=False)
        await registrar.start(30.0)
        first, api, arrives = consumer.channel("orders"), consumer.api, asyncio.Event()
        await first.ready()
        goodbye = api.send_goodbye

        async def late(id: str, services: Sequence[str] = ()) -> None:
            await arrives.wait()
            await goodbye(id, services)

        monkeypatch.setattr(api, "send_goodbye", late)
        closing = asyncio.create_task(first.close())
        await until(lambda: first.resolver.closed)
        second = consumer.channel("orders")
        await second.ready()
        arrives.set()
        await closing

        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(api, "acknowledge", never)
        drained = await registrar.drain(0.3)
        assert [consumer.name for consumer in drained.waiting] == ["shop"], "it has not acknowledged"
        await registrar.stop()
