"""The end of a node, and the refusal of a second one on the same file or port."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import suppress

import httpx

from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioSandbox, wait_until


async def test_sigterm_ends_watches_and_long_polls_and_loses_no_acknowledged_write(sandbox: ScenarioSandbox) -> None:
    node = await sandbox.start_registry()
    acknowledged: list[str] = []

    async def write() -> None:
        with suppress(httpx.TransportError, AssertionError):
            while True:
                id = f"o{len(acknowledged)}"
                await api.put(f"/services/orders/instances/{id}", port=8000)
                acknowledged.append(id)

    async with JsonApi(sandbox.url) as api:
        held = await api.put("/services/quiet/instances/q1", port=8000)
        watches = [asyncio.create_task(_watch_to_end(api)) for _ in range(5)]
        poll = {"after": str(held["revision"]), "wait": "60"}
        polls = [asyncio.create_task(api.http.get("/services/quiet", params=poll)) for _ in range(5)]
        writing = asyncio.create_task(write())
        await wait_until(lambda: len(acknowledged) >= 20)
        status = await api.get("/status")
        assert status["watches"] >= 5
        assert await node.stop(signal.SIGTERM) == 0
        assert "Traceback" not in node.stderr
        for text in await asyncio.wait_for(asyncio.gather(*watches), SCENARIO_TIMEOUT):
            assert text.endswith(": the registry is stopping\n\n"), "the answer ended with its last chunk"
        for answer in await asyncio.wait_for(asyncio.gather(*polls), SCENARIO_TIMEOUT):
            assert answer.status_code == 503, "the client should use another node"
        await asyncio.wait_for(writing, SCENARIO_TIMEOUT)
    await sandbox.start_registry()
    async with JsonApi(sandbox.url) as api:
        listed = await api.statuses("orders")
        assert set(acknowledged) <= set(listed)
        assert len(listed) <= len(acknowledged) + 1, "at most one unacknowledged write is listed"


async def _watch_to_end(api: JsonApi) -> str:
    async with api.http.stream("GET", "/watch", params={"service": "quiet"}) as answer:
        return (await answer.aread()).decode()


async def test_a_second_node_on_the_same_file_or_port_fails_with_the_reason(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    taken = {
        "store": ["--listen", f"127.0.0.1:{sandbox.port()}", "--xds", "off", "--store", sandbox.sqlite_url],
        "listen": ["--listen", f"127.0.0.1:{sandbox.node_port}", "--store", "memory:"],
    }
    seconds = {name: sandbox.adsum("serve", *options) for name, options in taken.items()}
    for name, second in seconds.items():
        assert await second.wait() not in (0, -signal.SIGKILL)
        assert len(second.stderr.strip().splitlines()) == 1, second.stderr
        assert re.match(r"adsum: .*(adsum\.db|127\.0\.0\.1)", second.stderr), (name, second.stderr)
    async with JsonApi(sandbox.url) as api:
        assert (await api.get("/status"))["ready"]
