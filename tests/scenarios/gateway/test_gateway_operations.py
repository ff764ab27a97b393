"""A hundred operations behind a gateway under constant load: scale-ups, scale-downs, rolling restarts and drains."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from adsum.client.client import Client
from tests.scenarios.gateway_load import GatewayLoad, drain, start_wrapped_instance
from tests.scenarios.instance_server import InstanceServer, running_instance
from tests.scenarios.processes import JsonApi, wait_until

TURNS, RESTARTS = 30, 10
"""Each turn scales up, scales down and drains. Some of them also restart a program, `RESTARTS` in all, which makes 100
operations."""
CALLERS, PACE = 8, 0.002
"""Concurrent callers, and the seconds that each pauses between two calls."""


class RegisteredInstances:
    """Instances of orders that register themselves, as programs with Adsum's client do. The oldest leaves first."""

    def __init__(self, client: Client, stack: AsyncExitStack) -> None:
        self.running: deque[tuple[InstanceServer, AsyncExitStack]] = deque()
        self._client = client
        self._stack = stack

    async def add(self, number: int) -> InstanceServer:
        """Scales up."""
        instance_stack = await self._stack.enter_async_context(AsyncExitStack())
        instance = await instance_stack.enter_async_context(running_instance(f"o{number}"))
        await instance_stack.enter_async_context(
            self._client.register("orders", instance.port, id=instance.id, address="127.0.0.1")
        )
        self.running.append((instance, instance_stack))
        return instance

    async def remove_oldest(self) -> None:
        """Scales down: the instance drains, deregisters, answers what has begun, and stops listening."""
        _, instance_stack = self.running.popleft()
        await instance_stack.aclose()


@asynccontextmanager
async def _drained(api: JsonApi, instance: InstanceServer) -> AsyncIterator[None]:
    """Drains the instance as an operator does, checks that it gets no call in the block, and resumes it."""
    await drain(api, "orders", instance.id)
    drained = time.monotonic()
    yield
    assert [call for call in instance.calls if call.arrived_at > drained] == [], (
        f"{instance.id} was called after its drain"
    )
    await api.delete(f"/services/orders/instances/{instance.id}/override")


@pytest.mark.long
async def test_a_hundred_operations_under_load_fail_no_request(gateway_load: GatewayLoad) -> None:
    await gateway_load.start_registry()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(gateway_load.sandbox.url))
        client = await stack.enter_async_context(Client(gateway_load.sandbox.url, cache=False))
        instances = RegisteredInstances(client, stack)
        for number in range(3):
            await instances.add(number)
        started = ["p0", "p1"]
        programs = deque(start_wrapped_instance(gateway_load.sandbox, id) for id in started)
        await api.wait_for_statuses("orders", lambda statuses: list(statuses.values()) == ["passing"] * 5)
        await gateway_load.start_gateway()
        await gateway_load.wait_for_answer()
        async with gateway_load.load(workers=CALLERS, pace=PACE):
            for turn in range(TURNS):
                restarts = turn % (TURNS // RESTARTS) == 0
                if restarts:
                    started.append(f"p{len(started)}")
                    programs.append(start_wrapped_instance(gateway_load.sandbox, started[-1]))
                newest = await instances.add(turn + 3)
                await wait_until(lambda newest=newest: newest.calls, lambda: gateway_load.failures[:3])  # type: ignore[misc]
                async with _drained(api, instances.running[1][0]):
                    await instances.remove_oldest()
                if restarts:
                    # A rolling restart: the new program serves before the old one is stopped.
                    await api.wait_for_statuses("orders", lambda statuses: statuses.get(started[-1]) == "passing")
                    old = programs.popleft()
                    assert await old.stop() == 0, old.stderr
            expected = {instance.id for instance, _ in instances.running} | set(started[-2:])
            before = gateway_load.answered.copy()
            await wait_until(
                lambda: all(gateway_load.answered[id] > before[id] for id in expected),
                lambda: gateway_load.failures[:3],
            )
        assert gateway_load.failures == []
        assert len(started) == 2 + RESTARTS
        assert set(started) <= gateway_load.answered.keys(), "every restarted program was called"
