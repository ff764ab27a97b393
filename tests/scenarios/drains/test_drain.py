"""After a drain was acknowledged, no cooperating consumer starts a new call to the instance. Exactly."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle, islice
from random import Random

from adsum.client.client import Client
from adsum.client.registration.registrar import Registrar
from tests.scenarios.instance_server import Instance, instance
from tests.scenarios.processes import Asking, Child, Place, until
from tests.scenarios.service_caller import load, told

CONSUMERS = 5
ROUNDS = 10
OUTAGE = 1.5
"""Seconds without a registry: consumers pause between their tries to reach it."""
IDS = ("o1", "o2", "o3")


@asynccontextmanager
async def orders(client: Client) -> AsyncIterator[dict[str, tuple[Instance, Registrar]]]:
    """Three instances of orders, listed."""
    async with AsyncExitStack() as stack:
        found = {}
        for id in IDS:
            serving = await stack.enter_async_context(instance(id))
            registrar = client.register("orders", serving.port, id=id, ttl=10.0)
            await registrar.start(30.0)
            found[id] = serving, registrar
        yield found


def consumers(place: Place, count: int) -> list[Child]:
    return [place.run(f"consumer{n}", "-m", "tests.scenarios.service_caller", "orders", "") for n in range(count)]


async def _drained_by(n: int, place: Place, asking: Asking, registrar: Registrar) -> float:
    """Drain in one of three ways; the monotonic instant by which it had returned."""
    if n % 5 in (0, 2, 4):
        answer = await asking.put(
            f"/services/orders/instances/{registrar.id}/override", status="draining", reason="deploy", wait=30
        )
        assert answer.get("unaware", 0) == 0
    elif n % 5 == 1:
        drained = await registrar.drain(30.0, "deploy")
        assert drained.done, drained
    else:
        command = place.adsum("drain", f"orders/{registrar.id}", "--wait", "--reason", "deploy")
        assert await command.ended() == 0, command.errors
    return time.monotonic()


async def test_after_a_drain_no_consumer_starts_a_call_and_none_fails(place: Place) -> None:
    await place.serve()
    rng = Random(3)
    async with Asking(place.url) as asking, Client(place.url, cache=False) as client, orders(client) as serving:
        calling = consumers(place, CONSUMERS)
        for child in calling:
            await child.said("calling")
        for n, id in enumerate(islice(cycle(IDS), ROUNDS)):
            drained_instance, registrar = serving[id]
            before = len(drained_instance.calls)
            await until(lambda d=drained_instance, b=before: len(d.calls) > b + 10)  # type: ignore[misc]
            at = await _drained_by(n, place, asking, registrar)
            await asyncio.sleep(rng.uniform(0.05, 0.3))  # Under load all the while: time for a violation to happen.
            since = [call for call in drained_instance.calls if call.chosen > at]
            assert not since, f"round {n}: {len(since)} calls were begun up to {since[-1].chosen - at:.4f} s after"
            await asking.delete(f"/services/orders/instances/{id}/override")
        for child in calling:
            tells = await told(child)
            assert tells["failures"] == []
            assert sum(tells["answered"].values()) > 0
        history = await asking.get("/changes", service="orders")
        causes = [each for each in history["changes"] if each["status"] == "draining"]
        assert len(causes) == ROUNDS
        assert all(each["actor"] and each["reason"] == "deploy" for each in causes)


async def test_a_consumer_that_hangs_makes_the_drain_say_so_after_its_wait(place: Place) -> None:
    await place.serve()
    async with Asking(place.url) as asking, Client(place.url, cache=False) as client, orders(client) as serving:
        calling = consumers(place, 2)
        for child in calling:
            await child.said("calling")
        calling[0].tell(signal.SIGSTOP)
        override = "/services/orders/instances/o1/override"
        answer = await asking.put(override, status="draining", wait=1.0)
        assert answer["unaware"] == 1
        at = time.monotonic()
        command = place.adsum("drain", "orders/o2", "--timeout", "1s")
        assert await command.ended() == 124
        assert "1 consumer" in command.errors
        calling[0].tell(signal.SIGCONT)
        answer = await asking.put(override, status="draining", wait=30.0)
        assert answer.get("unaware", 0) == 0, "awake again, it is waited for"
        at = time.monotonic()
        await until(lambda: len(serving["o3"][0].calls) > 20)
        assert not [call for call in serving["o1"][0].calls if call.chosen > at]


async def test_right_after_a_restart_a_drain_waits_for_the_consumers_of_before(place: Place) -> None:
    node = await place.serve()
    async with Asking(place.url) as asking, Client(place.url, cache=False) as client, orders(client) as serving:
        async with Client(place.url, cache=False) as consumer:
            channel = consumer.channel("orders")
            await until(lambda: channel.choices == len(IDS))
            async with load(channel) as caller:
                await node.end(signal.SIGKILL)
                await until(lambda: not channel.resolver.connected)
                await asyncio.sleep(OUTAGE)
                await place.serve()
                answer = await asking.put("/services/orders/instances/o1/override", status="draining", wait=30.0)
                at = time.monotonic()
                assert answer.get("unaware", 0) == 0
                before = caller.answered.total()
                await until(lambda: caller.answered.total() > before + 30)
        assert caller.failures == []
        assert not [call for call in serving["o1"][0].calls if call.chosen > at]
