"""After an acknowledged drain, no cooperating consumer starts a new call to the instance, not even one."""

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
from tests.scenarios.instance_server import InstanceServer, running_instance
from tests.scenarios.processes import JsonApi, ScenarioProcess, ScenarioSandbox, wait_until
from tests.scenarios.service_caller import final_report, load

CONSUMERS = 5
ROUNDS = 10
OUTAGE = 1.5
"""Seconds without a registry, in which consumers pause between their tries to reach it."""
IDS = ("o1", "o2", "o3")


@asynccontextmanager
async def orders(client: Client) -> AsyncIterator[dict[str, tuple[InstanceServer, Registrar]]]:
    """Runs three instances of orders that are listed."""
    async with AsyncExitStack() as stack:
        found = {}
        for id in IDS:
            serving = await stack.enter_async_context(running_instance(id))
            registrar = client.register("orders", serving.port, id=id, ttl=10.0)
            await registrar.start(30.0)
            found[id] = serving, registrar
        yield found


def consumers(sandbox: ScenarioSandbox, count: int) -> list[ScenarioProcess]:
    return [sandbox.run(f"consumer{n}", "-m", "tests.scenarios.service_caller", "orders", "") for n in range(count)]


async def _drain(n: int, sandbox: ScenarioSandbox, api: JsonApi, registrar: Registrar) -> float:
    """Drains the instance in one of three ways. Returns the monotonic time at which the drain had returned."""
    if n % 5 in (0, 2, 4):
        answer = await api.put(
            f"/services/orders/instances/{registrar.id}/override", status="draining", reason="deploy", wait=30
        )
        assert answer.get("unacknowledged", 0) == 0
    elif n % 5 == 1:
        drained = await registrar.drain(30.0, "deploy")
        assert drained.done, drained
    else:
        command = sandbox.adsum("drain", f"orders/{registrar.id}", "--wait", "--reason", "deploy")
        assert await command.wait() == 0, command.stderr
    return time.monotonic()


async def test_after_a_drain_no_consumer_starts_a_call_and_none_fails(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    rng = Random(3)
    async with JsonApi(sandbox.url) as api, Client(sandbox.url, cache=False) as client, orders(client) as serving:
        calling = consumers(sandbox, CONSUMERS)
        for child in calling:
            await child.wait_for_output("calling")
        for n, id in enumerate(islice(cycle(IDS), ROUNDS)):
            drained_instance, registrar = serving[id]
            before = len(drained_instance.calls)
            await wait_until(lambda d=drained_instance, b=before: len(d.calls) > b + 10)  # type: ignore[misc]
            at = await _drain(n, sandbox, api, registrar)
            await asyncio.sleep(rng.uniform(0.05, 0.3))  # Under load, so that a violation has time to happen.
            since = [call for call in drained_instance.calls if call.chosen_at > at]
            assert not since, f"round {n}: {len(since)} calls were begun up to {since[-1].chosen_at - at:.4f} s after"
            await api.delete(f"/services/orders/instances/{id}/override")
        for child in calling:
            report = await final_report(child)
            assert report["failures"] == []
            assert sum(report["answered"].values()) > 0
        history = await api.get("/changes", service="orders")
        drains = [change for change in history["changes"] if change["status"] == "draining"]
        assert len(drains) == ROUNDS
        assert all(change["actor"] and change["reason"] == "deploy" for change in drains)


async def test_a_drain_reports_a_consumer_that_hangs_after_its_wait(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    async with JsonApi(sandbox.url) as api, Client(sandbox.url, cache=False) as client, orders(client) as serving:
        calling = consumers(sandbox, 2)
        for child in calling:
            await child.wait_for_output("calling")
        calling[0].send_signal(signal.SIGSTOP)
        override = "/services/orders/instances/o1/override"
        answer = await api.put(override, status="draining", wait=1.0)
        assert answer["unacknowledged"] == 1
        at = time.monotonic()
        command = sandbox.adsum("drain", "orders/o2", "--timeout", "1s")
        assert await command.wait() == 124
        assert "1 consumer" in command.stderr
        calling[0].send_signal(signal.SIGCONT)
        answer = await api.put(override, status="draining", wait=30.0)
        assert answer.get("unacknowledged", 0) == 0, "the drain waits for it, since it runs again"
        at = time.monotonic()
        await wait_until(lambda: len(serving["o3"][0].calls) > 20)
        assert not [call for call in serving["o1"][0].calls if call.chosen_at > at]


async def test_a_drain_right_after_a_restart_waits_for_the_consumers_before_it(sandbox: ScenarioSandbox) -> None:
    node = await sandbox.start_registry()
    async with JsonApi(sandbox.url) as api, Client(sandbox.url, cache=False) as client, orders(client) as serving:
        async with Client(sandbox.url, cache=False) as consumer:
            channel = consumer.channel("orders")
            await wait_until(lambda: channel.usable_count == len(IDS))
            async with load(channel) as caller:
                await node.stop(signal.SIGKILL)
                await wait_until(lambda: not channel.resolver.connected)
                await asyncio.sleep(OUTAGE)
                await sandbox.start_registry()
                answer = await api.put("/services/orders/instances/o1/override", status="draining", wait=30.0)
                at = time.monotonic()
                assert answer.get("unacknowledged", 0) == 0
                before = caller.answered.total()
                await wait_until(lambda: caller.answered.total() > before + 30)
        assert caller.failures == []
        assert not [call for call in serving["o1"][0].calls if call.chosen_at > at]
