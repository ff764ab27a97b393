"""kill -9 of the registry at any time: no acknowledged write is lost, no view goes backwards, no status flaps."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from random import Random

import httpx
import pytest

from adsum.client.client import Client
from adsum.client.views.resolver import Resolver
from tests.scenarios.processes import JsonApi, ScenarioSandbox, wait_until
from tests.scenarios.sse_watcher import SseWatcher

KILLS = 4
WRITERS = 16
STEADY = 5
TTL = 4.0
"""The ttl of the instances that renew throughout: longer than any outage here, shorter than all of them together."""


class AcknowledgedWriter:
    """A writer that registers and deregisters instances of its own, and records the acknowledged requests."""

    def __init__(self, api: JsonApi, number: int) -> None:
        self.acknowledged: dict[str, bool] = {}
        """The last acknowledged state of each instance by id: True if it is listed."""
        self.doubtful: set[str] = set()
        """Instances whose last request got no answer: they may be listed or not."""
        self.epochs: set[str] = set()
        self.revision = 0
        self._api = api
        self._number = number
        self._rng = Random(number)

    async def write(self) -> None:
        """Writes until the registry is gone."""
        while True:
            listed = sorted(id for id, is_listed in self.acknowledged.items() if is_listed and id not in self.doubtful)
            leaves = bool(listed) and self._rng.random() < 0.4
            id = self._rng.choice(listed) if leaves else f"w{self._number}-{len(self.acknowledged)}"
            path = f"/services/churn-{self._number % 3}/instances/{id}"
            self.doubtful.add(id)
            self.acknowledged.setdefault(id, False)
            try:
                written = await (self._api.delete(path) if leaves else self._api.put(path, port=8000, ttl=600))
            except httpx.TransportError:
                return
            self.doubtful.discard(id)
            self.acknowledged[id] = not leaves
            self.epochs.add(written["epoch"])
            assert written["revision"] > self.revision, "a write that changes something has a revision of its own"
            self.revision = written["revision"]
            await asyncio.sleep(self._rng.uniform(0.0, 0.05))  # It leaves processor time to other processes.


async def _check_never_backwards(resolver: Resolver, seen: list[int]) -> None:
    """Follows the views of a resolver. Fails if they go backwards."""
    position = ("", 0)
    async for view in resolver.watch():
        assert position[0] in ("", view.epoch)
        assert view.revision >= position[1], f"{view} after {position}"
        position = (view.epoch, view.revision)
        seen.append(view.revision)


async def _check(api: JsonApi, writers: list[AcknowledgedWriter]) -> None:
    """Checks that the registry has all acknowledged writes."""
    found = set()
    for n in range(3):
        found |= set(await api.statuses(f"churn-{n}"))
    expected = {id for writer in writers for id, is_listed in writer.acknowledged.items() if is_listed}
    doubtful = {id for writer in writers for id in writer.doubtful}
    assert found - doubtful == expected - doubtful
    status = await api.get("/status")
    assert status["revision"] >= max(writer.revision for writer in writers)
    assert {status["epoch"]} == {epoch for writer in writers for epoch in writer.epochs}


@pytest.mark.long
async def test_kill_9_under_load_loses_no_write_and_no_view_goes_backwards(sandbox: ScenarioSandbox) -> None:
    rng, seen = Random(11), list[int]()
    node = await sandbox.start_registry()
    async with JsonApi(sandbox.url) as api, Client(sandbox.url, cache=False) as client, AsyncExitStack() as stack:
        for n in range(STEADY):
            await client.register("steady", 8000, id=f"s{n}", ttl=TTL).start(30.0)
        watcher, writers = SseWatcher(sandbox.url), [AcknowledgedWriter(api, n) for n in range(WRITERS)]
        resolvers = [client.resolver("churn-0"), client.resolver("steady")]
        following = [
            asyncio.create_task(watcher.follow()),
            *(asyncio.create_task(_check_never_backwards(resolver, seen)) for resolver in resolvers),
        ]
        stack.push_async_callback(_cancel, following)
        for kills in range(KILLS):
            writing = [asyncio.create_task(writer.write()) for writer in writers]
            await _wait_until_connected(watcher, resolvers, kills + 1)
            await asyncio.sleep(rng.uniform(0.1, 0.6))
            await node.stop(signal.SIGKILL)
            await asyncio.gather(*writing)
            node = await sandbox.start_registry()
            await _check(api, writers)
        revision = (await api.get("/status"))["revision"]
        await wait_until(
            lambda: watcher.revision >= revision and all(resolver.view.revision >= revision for resolver in resolvers)
        )
        assert not [task for task in following if task.done()], "no view went backwards"
        for n in range(3):
            assert set(watcher.services.get(f"churn-{n}", {})) == set(await api.statuses(f"churn-{n}"))
        assert len(watcher.epochs) == 1
        assert {endpoint.id for endpoint in resolvers[0].view.endpoints} == set(await api.statuses("churn-0"))
        assert watcher.connections > KILLS
        assert sum(len(writer.acknowledged) for writer in writers) > WRITERS
        for n in range(STEADY):
            assert watcher.statuses_seen[f"steady/s{n}"] == {"passing"}, (
                "an instance that renews never had another status"
            )
            history = await api.get("/changes", service="steady", id=f"s{n}")
            assert [change["cause"] for change in history["changes"]] == ["registered"]


async def _wait_until_connected(watcher: SseWatcher, resolvers: list[Resolver], count: int) -> None:
    """Returns once the watcher has opened `count` connections and all resolvers are connected."""
    await wait_until(lambda: watcher.connections >= count and all(resolver.connected for resolver in resolvers))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, AssertionError):
            raise outcome
