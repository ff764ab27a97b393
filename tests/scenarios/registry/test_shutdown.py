"""How a node ends, and how a second one is turned away."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import suppress

import httpx

from tests.scenarios.processes import PATIENCE, Asking, Place, until


async def test_sigterm_ends_watches_and_long_polls_and_keeps_what_it_acknowledged(place: Place) -> None:
    node = await place.serve()
    acknowledged: list[str] = []

    async def write() -> None:
        with suppress(httpx.TransportError, AssertionError):
            while True:
                id = f"o{len(acknowledged)}"
                await asking.put(f"/services/orders/instances/{id}", port=8000)
                acknowledged.append(id)

    async with Asking(place.url) as asking:
        held = await asking.put("/services/quiet/instances/q1", port=8000)
        watches = [asyncio.create_task(_watched(asking)) for _ in range(5)]
        poll = {"after": str(held["revision"]), "wait": "60"}
        polls = [asyncio.create_task(asking.http.get("/services/quiet", params=poll)) for _ in range(5)]
        writing = asyncio.create_task(write())
        await until(lambda: len(acknowledged) >= 20)
        status = await asking.get("/status")
        assert status["watches"] >= 5
        assert await node.end(signal.SIGTERM) == 0
        assert "Traceback" not in node.errors
        for text in await asyncio.wait_for(asyncio.gather(*watches), PATIENCE):
            assert text.endswith(": the registry is stopping\n\n"), "the answer ended as HTTP says it"
        for answer in await asyncio.wait_for(asyncio.gather(*polls), PATIENCE):
            assert answer.status_code == 503, "another node is to be asked"
        await asyncio.wait_for(writing, PATIENCE)
    await place.serve()
    async with Asking(place.url) as asking:
        listed = await asking.statuses("orders")
        assert set(acknowledged) <= set(listed)
        assert len(listed) <= len(acknowledged) + 1, "at most the one that was under way"


async def _watched(asking: Asking) -> str:
    async with asking.http.stream("GET", "/watch", params={"service": "quiet"}) as answer:
        return (await answer.aread()).decode()


async def test_a_second_node_on_the_same_file_or_port_says_why_not(place: Place) -> None:
    await place.serve()
    taken = {
        "store": ["--listen", f"127.0.0.1:{place.port()}", "--xds", "off", "--store", place.sqlite],
        "listen": ["--listen", f"127.0.0.1:{place.node_port}", "--store", "memory:"],
    }
    seconds = {name: place.adsum("serve", *options) for name, options in taken.items()}
    for name, second in seconds.items():
        assert await second.ended() not in (0, -signal.SIGKILL)
        assert len(second.errors.strip().splitlines()) == 1, second.errors
        assert re.match(r"adsum: .*(adsum\.db|127\.0\.0\.1)", second.errors), (name, second.errors)
    async with Asking(place.url) as asking:
        assert (await asking.get("/status"))["ready"]
