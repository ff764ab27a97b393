"""Drains with consumers that have no connection: they may still call, so a drain waits for them or names them."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from adsum.core.liveness.heartbeats import lost_after
from tests.scenarios.processes import JsonApi, ScenarioSandbox
from tests.support.etcd_process import EtcdProcess
from tests.support.tcp_proxy import TcpProxy

HEARTBEAT_INTERVAL = 0.5
LOST_AFTER = lost_after(HEARTBEAT_INTERVAL)
OVERRIDE = "/services/orders/instances/o1/override"


class ManualConsumer:
    """A cooperating consumer without the library: it acknowledges when the test calls `acknowledge`."""

    def __init__(self, answer: httpx.Response, http: httpx.AsyncClient) -> None:
        self._lines = answer.aiter_lines()
        self._http = http
        self._token = ""

    async def wait_for_event(self, event: str = "synced") -> None:
        """Returns at the next event of that kind."""
        async for line in self._lines:
            if line.startswith("data: ") and not self._token:
                self._token = json.loads(line.removeprefix("data: "))["watch"]
            if line == f"event: {event}":
                return

    async def acknowledge(self, revision: int) -> None:
        answer = await self._http.post(f"/watches/{self._token}/acknowledge", json={"revision": revision})
        assert answer.status_code == 204, answer.text


@asynccontextmanager
async def manual_consumer(url: str) -> AsyncIterator[ManualConsumer]:
    """Opens a watch of orders by the consumer `web`, which has received the newest state."""
    params = {"service": "orders", "acks": "true", "consumer": "c0ffee", "name": "web"}
    async with (
        httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=30.0, trust_env=False) as http,
        http.stream("GET", "/watch", params=params) as answer,
    ):
        found = ManualConsumer(answer, http)
        await found.wait_for_event()
        yield found


async def test_a_consumer_behind_a_proxy_that_restarts_is_waited_for_until_it_is_back(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry("", "--heartbeat", str(HEARTBEAT_INTERVAL))
    proxy = await TcpProxy(sandbox.node_port).open()
    async with JsonApi(sandbox.url) as api:
        registered = await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        async with manual_consumer(f"http://127.0.0.1:{proxy.port}") as consumer:
            await consumer.acknowledge(registered["revision"])
            await proxy.close()
        began = time.monotonic()
        drain = asyncio.create_task(api.put(OVERRIDE, status="draining", wait=10))
        await asyncio.sleep(0.3)
        async with manual_consumer(sandbox.url) as back:
            assert not drain.done()
            await back.acknowledge(registered["revision"] + 1)
            answer = await drain
            assert time.monotonic() - began < LOST_AFTER
            assert not answer.keys() & {"unacknowledged", "lost"}


async def test_a_consumer_that_does_not_come_back_is_named_as_waited_for_and_then_as_lost(
    sandbox: ScenarioSandbox,
) -> None:
    node = await sandbox.start_registry("", "--heartbeat", str(HEARTBEAT_INTERVAL))
    async with JsonApi(sandbox.url) as api:
        await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        async with manual_consumer(sandbox.url):
            pass
        command = sandbox.adsum("drain", "orders/o1", "--timeout", "500ms")
        assert await command.wait() == 124
        assert "1 consumer has not confirmed within 0.5 s" in command.stderr
        assert "web at 127.0.0.1 (known to n1): its connection ended without a good-bye" in command.stderr
        assert "orders/o1 is draining; after 0.5 s, 1 had not acknowledged it: 'web' at 127.0.0.1" in node.stderr
        began = time.monotonic()
        command = sandbox.adsum("drain", "orders/o1", "--timeout", "8s")
        assert await command.wait() == 0
        assert time.monotonic() - began < LOST_AFTER + 2.0
        assert "lost, and not waited for" in command.stderr
        assert "web at 127.0.0.1 (known to n1)" in command.stderr
        status = await api.get("/status")
        assert (status.get("consumers_departed", 0), status["consumers_lost"]) == (0, 1)


async def test_a_mute_consumer_is_named_by_the_drain_that_it_holds_up(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry("", "--heartbeat", str(HEARTBEAT_INTERVAL))
    async with JsonApi(sandbox.url) as api:
        await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
        async with manual_consumer(sandbox.url) as mute:
            answer = await api.put(OVERRIDE, status="draining", wait=0.5)
            assert [entry["reason"] for entry in answer["waiting"]] == ["it is connected, and has not acknowledged"]
            await mute.wait_for_event("change")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as found:
        yield found


async def test_a_drain_names_a_node_that_hangs_and_keeps_to_its_wait(
    sandbox: ScenarioSandbox, etcd: EtcdProcess
) -> None:
    beside = ScenarioSandbox(sandbox.folder / "beside")
    beside.folder.mkdir()
    try:
        options = ("--heartbeat", str(HEARTBEAT_INTERVAL))
        await sandbox.start_registry(etcd.url, *options, "--node", "well")
        hanging = await beside.start_registry(etcd.url, *options, "--node", "hangs")
        async with JsonApi(sandbox.url) as api:
            registered = await api.put("/services/orders/instances/o1", port=9001, address="127.0.0.1", ttl=600)
            await _wait_until_known(api, "hangs")
            async with manual_consumer(beside.url) as consumer:
                await consumer.acknowledge(registered["revision"])
                hanging.send_signal(signal.SIGSTOP)
                command = sandbox.adsum("drain", "orders/o1", "--timeout", "1s")
                assert await command.wait() == 124, command.stderr
                assert f"hangs at {beside.url}" in command.stderr
                began = time.monotonic()
                answer = await api.put(OVERRIDE, status="draining", reason="again", wait=8)
                assert time.monotonic() - began < LOST_AFTER + 1.0
                assert [(entry["name"], entry["address"]) for entry in answer["lost"]] == [("hangs", beside.url)]
                assert "unacknowledged" not in answer
                began = time.monotonic()
                answer = await api.put(OVERRIDE, status="draining", reason="and again", wait=8)
                assert time.monotonic() - began < 2.0, "a drain does not wait again for a lost node"
    finally:
        hanging.send_signal(signal.SIGCONT)
        beside.close()


async def _wait_until_known(api: JsonApi, name: str) -> None:
    """Returns once the node has a peer of that name."""
    async with asyncio.timeout(30.0):
        while name not in {peer["node"] for peer in (await api.get("/status")).get("peers", [])}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
