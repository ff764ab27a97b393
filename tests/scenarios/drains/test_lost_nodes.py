"""A node that is lost in the middle of a drain: the drain is asked again, and those who were waited for still are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.client.client import Client
from adsum.wire import OverrideBody
from tests.scenarios.drains.test_lost_consumers import HEARTBEAT, consuming
from tests.scenarios.processes import Asking, Place
from tests.support.etcd_process import Etcd

OPTIONS = ("--heartbeat", str(HEARTBEAT))


async def _draining(asking: Asking, count: int) -> None:
    await asking.stand("orders", lambda found: list(found.values()).count("draining") == count)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_every_drain_goes_on_when_the_node_is_back(place: Place, number: int) -> None:
    node = await place.serve("", *OPTIONS)
    async with Asking(place.url) as asking, Client(place.url, cache=False) as client:
        await asking.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        registrar = client.register("orders", place.port(), id="o2", signals=False)
        await registrar.start(30.0)
        program = ("--service", "orders", "--id", "o3", "--drain-timeout", "60s")
        wrapper = place.adsum("run", *program, "--", "python3", "-m", "tests.scenarios.instance_server", "o3")
        await asking.stand("orders", lambda found: list(found.values()).count("passing") == 3)
        async with consuming(place.url) as consumer:
            await consumer.acknowledge((await asking.get("/services"))["revision"])
            command = place.adsum("drain", "orders/o1", "--timeout", "60s")
            drain = asyncio.create_task(registrar.drain(60.0))
            wrapper.tell(signal.SIGTERM)
            await _draining(asking, 3)
            await node.end(number)
        await place.serve("", *OPTIONS)
        async with consuming(place.url) as back:
            assert command.process.poll() is wrapper.process.poll() is None
            assert not drain.done()
            await back.acknowledge((await asking.get("/services"))["revision"])
            assert await command.ended() == 0, command.errors
            drained = await drain
            assert (drained.done, str(drained)) == (True, "no cooperating consumer calls any more")
            await wrapper.said("draining: no cooperating consumer calls any more")
        assert "orders/o1 is draining; no cooperating consumer calls it any more" in command.errors
        await wrapper.ended()


async def test_a_registry_that_comes_back_without_its_state_is_told_of_the_drain_again(place: Place) -> None:
    node = await place.serve("memory:", *OPTIONS)
    async with Asking(place.url) as asking, Client(place.url, cache=False) as client:
        registrars = [client.register("orders", place.port(), id=id, ttl=3.0, signals=False) for id in ("o1", "o2")]
        for registrar in registrars:
            await registrar.start(30.0)
        async with consuming(place.url) as consumer:
            await consumer.acknowledge((await asking.get("/services"))["revision"])
            command = place.adsum("drain", "orders/o1", "--timeout", "60s")
            drain = asyncio.create_task(registrars[1].drain(60.0))
            await _draining(asking, 2)
            await node.end(signal.SIGKILL)
        await place.serve("memory:", *OPTIONS)
        await _draining(asking, 2)
        assert command.process.poll() is None, "the consumer may not have come back yet"
        assert not drain.done()
        async with consuming(place.url) as back:
            await back.acknowledge((await asking.get("/services"))["revision"])
            assert await command.ended() == 0, command.errors
            assert (await drain).done


async def test_a_registry_that_does_not_come_back_is_said_when_the_wait_is_over(place: Place) -> None:
    node = await place.serve("", *OPTIONS)
    async with Asking(place.url) as asking:
        registered = await asking.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        async with consuming(place.url) as consumer:
            await consumer.acknowledge(registered["revision"])
            command = place.adsum("drain", "orders/o1", "--timeout", "2s")
            await _draining(asking, 1)
            await node.end(signal.SIGTERM)
    assert await command.ended() == 124
    assert (
        "orders/o1 was told to drain; whether it drains, and whether consumers know, could not be asked"
        in command.errors
    )
    assert "orders/o1 is draining, but the node is stopping" in command.errors
    assert "All connection attempts failed" in command.errors


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path) as found:
        yield found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_drain_goes_on_at_the_other_node(place: Place, etcd: Etcd, number: int) -> None:
    beside = Place(place.folder / "beside")
    beside.folder.mkdir()
    try:
        await beside.serve(etcd.url, *OPTIONS, "--node", "stays")
        ending = await place.serve(etcd.url, *OPTIONS, "--node", "ends")
        urls = [place.url, beside.url]
        async with Asking(beside.url) as asking, Client(urls, cache=False, routes=False) as client:
            client.api.nodes.failed(beside.url)  # It asks the other one first.
            registered = await asking.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
            async with consuming(beside.url) as consumer:
                await consumer.acknowledge(registered["revision"])
                body = OverrideBody("draining", wait=60.0)
                drain = asyncio.create_task(client.api.override("orders", "o1", body))
                await _draining(asking, 1)
                await ending.end(number)
                assert not drain.done()
                await consumer.acknowledge((await asking.get("/services"))["revision"])
                assert (await drain).unaware == 0
    finally:
        beside.clear()
