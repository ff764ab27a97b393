"""A node that is lost during a drain: the drain is requested again and still waits for the same consumers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.client.client import Client
from adsum.wire import OverrideBody
from tests.scenarios.drains.test_lost_consumers import HEARTBEAT_INTERVAL, manual_consumer
from tests.scenarios.processes import JsonApi, ScenarioSandbox
from tests.support.etcd_process import EtcdProcess

OPTIONS = ("--heartbeat", str(HEARTBEAT_INTERVAL))


async def _wait_for_draining(api: JsonApi, count: int) -> None:
    await api.wait_for_statuses("orders", lambda found: list(found.values()).count("draining") == count)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_every_drain_continues_when_the_node_is_back(sandbox: ScenarioSandbox, number: int) -> None:
    node = await sandbox.start_registry("", *OPTIONS)
    async with JsonApi(sandbox.url) as api, Client(sandbox.url, cache=False) as client:
        await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        registrar = client.register("orders", sandbox.port(), id="o2", signals=False)
        await registrar.start(30.0)
        program = ("--service", "orders", "--id", "o3", "--drain-timeout", "60s")
        wrapper = sandbox.adsum("run", *program, "--", "python3", "-m", "tests.scenarios.instance_server", "o3")
        await api.wait_for_statuses("orders", lambda found: list(found.values()).count("passing") == 3)
        async with manual_consumer(sandbox.url) as consumer:
            await consumer.acknowledge((await api.get("/services"))["revision"])
            command = sandbox.adsum("drain", "orders/o1", "--timeout", "60s")
            drain = asyncio.create_task(registrar.drain(60.0))
            wrapper.send_signal(signal.SIGTERM)
            await _wait_for_draining(api, 3)
            await node.stop(number)
        await sandbox.start_registry("", *OPTIONS)
        async with manual_consumer(sandbox.url) as back:
            assert command.process.poll() is wrapper.process.poll() is None
            assert not drain.done()
            await back.acknowledge((await api.get("/services"))["revision"])
            assert await command.wait() == 0, command.stderr
            drained = await drain
            assert (drained.done, str(drained)) == (True, "no cooperating consumer calls any more")
            await wrapper.wait_for_output("draining: no cooperating consumer calls any more")
        assert "orders/o1 is draining; no cooperating consumer calls it any more" in command.stderr
        await wrapper.wait()


async def test_a_drain_is_requested_again_from_a_registry_that_lost_its_state(sandbox: ScenarioSandbox) -> None:
    node = await sandbox.start_registry("memory:", *OPTIONS)
    async with JsonApi(sandbox.url) as api, Client(sandbox.url, cache=False) as client:
        registrars = [client.register("orders", sandbox.port(), id=id, ttl=3.0, signals=False) for id in ("o1", "o2")]
        for registrar in registrars:
            await registrar.start(30.0)
        async with manual_consumer(sandbox.url) as consumer:
            await consumer.acknowledge((await api.get("/services"))["revision"])
            command = sandbox.adsum("drain", "orders/o1", "--timeout", "60s")
            drain = asyncio.create_task(registrars[1].drain(60.0))
            await _wait_for_draining(api, 2)
            await node.stop(signal.SIGKILL)
        await sandbox.start_registry("memory:", *OPTIONS)
        await _wait_for_draining(api, 2)
        assert command.process.poll() is None, "the consumer may not have come back yet"
        assert not drain.done()
        async with manual_consumer(sandbox.url) as back:
            await back.acknowledge((await api.get("/services"))["revision"])
            assert await command.wait() == 0, command.stderr
            assert (await drain).done


async def test_a_drain_reports_a_registry_that_does_not_come_back_after_its_wait(sandbox: ScenarioSandbox) -> None:
    node = await sandbox.start_registry("", *OPTIONS)
    async with JsonApi(sandbox.url) as api:
        registered = await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        async with manual_consumer(sandbox.url) as consumer:
            await consumer.acknowledge(registered["revision"])
            command = sandbox.adsum("drain", "orders/o1", "--timeout", "2s")
            await _wait_for_draining(api, 1)
            await node.stop(signal.SIGTERM)
    assert await command.wait() == 124
    assert "the drain of orders/o1 was requested, but its result is unknown" in command.stderr
    assert "orders/o1 is draining, but the node is stopping" in command.stderr
    assert "All connection attempts failed" in command.stderr


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as found:
        yield found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_drain_continues_at_the_other_node(sandbox: ScenarioSandbox, etcd: EtcdProcess, number: int) -> None:
    beside = ScenarioSandbox(sandbox.folder / "beside")
    beside.folder.mkdir()
    try:
        await beside.start_registry(etcd.url, *OPTIONS, "--node", "stays")
        ending = await sandbox.start_registry(etcd.url, *OPTIONS, "--node", "ends")
        urls = [sandbox.url, beside.url]
        async with JsonApi(beside.url) as api, Client(urls, cache=False, acknowledge=False) as client:
            client.api.nodes.mark_failed(beside.url)  # The client uses the other node first.
            registered = await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
            async with manual_consumer(beside.url) as consumer:
                await consumer.acknowledge(registered["revision"])
                body = OverrideBody("draining", wait=60.0)
                drain = asyncio.create_task(client.api.override("orders", "o1", body))
                await _wait_for_draining(api, 1)
                await ending.stop(number)
                assert not drain.done()
                await consumer.acknowledge((await api.get("/services"))["revision"])
                assert (await drain).unacknowledged == 0
    finally:
        beside.close()
