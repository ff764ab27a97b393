"""Killing the registry stops no traffic: consumers use the last good view, and follow changes when it is back."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from adsum.client.client import Client
from adsum.client.registration.registrar import Registrar
from adsum.client.views.view import View
from adsum.client.views.view_cache import ViewCache
from tests.scenarios.instance_server import InstanceServer, running_instance
from tests.scenarios.processes import ScenarioSandbox, wait_until
from tests.scenarios.service_caller import final_report, load

OUTAGE = 2.0
"""Seconds without a registry, under load."""


class Orders:
    """A service of three instances with their provider, and a consumer."""

    def __init__(self, sandbox: ScenarioSandbox, stack: AsyncExitStack) -> None:
        self._sandbox = sandbox
        self._stack = stack
        self.cache = sandbox.folder / "views"
        self.serving: list[InstanceServer] = []
        self.registrars: list[Registrar] = []

    async def start(self, ttl: float) -> None:
        self.provider = await self._stack.enter_async_context(Client(self._sandbox.url, cache=False))
        self.consumer = await self._stack.enter_async_context(Client(self._sandbox.url, cache=self.cache))
        for n in range(3):
            await self.add(f"o{n}", ttl)
        self.channel = self.consumer.channel("orders")
        await wait_until(lambda: self.channel.usable_count == 3)

    async def add(self, id: str, ttl: float) -> InstanceServer:
        serving = await self._stack.enter_async_context(running_instance(id))
        registrar = self.provider.register("orders", serving.port, id=id, ttl=ttl)
        await registrar.start(30.0)
        self.serving.append(serving)
        self.registrars.append(registrar)
        return serving


async def test_calls_continue_without_a_registry_and_a_new_program_starts(sandbox: ScenarioSandbox) -> None:
    async with AsyncExitStack() as stack:
        node, orders = await sandbox.start_registry(), Orders(sandbox, stack)
        await orders.start(ttl=600.0)
        async with load(orders.channel) as caller:
            await wait_until(lambda: _cached_ids(orders.cache, sandbox.url) == {"o0", "o1", "o2"})
            await node.stop(signal.SIGKILL)
            await wait_until(lambda: not orders.channel.resolver.connected)
            before = caller.answered.copy()
            newcomer = sandbox.run("newcomer", "-m", "tests.scenarios.service_caller", "orders", str(orders.cache))
            await newcomer.wait_for_output("calling")
            await asyncio.sleep(OUTAGE)
            assert "disk o0 o1 o2." in newcomer.stdout
            assert "live" not in newcomer.stdout
            assert set(caller.answered - before) == {"o0", "o1", "o2"}, "all instances were called without a registry"
            await sandbox.start_registry()
            await orders.registrars[0].stop("scaled down")
            late = await orders.add("late", ttl=600.0)
            await wait_until(
                lambda: [endpoint.id for endpoint in orders.channel.resolver.view.endpoints] == ["late", "o1", "o2"]
            )
            await newcomer.wait_for_output("live late o1 o2.")
            await wait_until(lambda: late.calls)
            assert (await final_report(newcomer))["failures"] == []
        assert caller.failures == []


def _cached_ids(cache: Path, url: str) -> set[str]:
    cached = ViewCache(cache, [url]).load("orders")
    return {endpoint.id for endpoint in cached.endpoints} if cached is not None else set()


async def test_instances_register_again_after_lost_state_and_no_view_shows_the_gap(sandbox: ScenarioSandbox) -> None:
    views: list[View] = []
    async with AsyncExitStack() as stack:
        node, orders = await sandbox.start_registry("memory:"), Orders(sandbox, stack)
        await orders.start(ttl=3.0)
        before = orders.channel.resolver.view.epoch
        async with load(orders.channel) as caller:
            orders.channel.resolver.subscribe(views.append)
            await wait_until(lambda: caller.answered.total() > 10)
            await node.stop(signal.SIGKILL)
            await wait_until(lambda: not orders.channel.resolver.connected)
            await sandbox.start_registry("memory:")
            await wait_until(lambda: orders.channel.resolver.view.epoch not in ("", before))
            await wait_until(
                lambda: all(
                    registrar.registered and registrar.epoch not in ("", before) for registrar in orders.registrars
                )
            )
            # Changes are followed in the new epoch, too.
            await orders.registrars[0].stop("scaled down")
            await wait_until(
                lambda: [endpoint.id for endpoint in orders.channel.resolver.view.endpoints] == ["o1", "o2"]
            )
        assert caller.failures == []
        assert {len(view.endpoints) for view in views} == {3, 2}, "the view was never wiped"
        assert all(endpoint.status == "passing" for view in views for endpoint in view.endpoints)
