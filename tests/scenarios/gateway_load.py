"""A gateway on a real Envoy, and callers at it who count what became of their requests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx

from tests.scenarios.instance_server import InstanceServer
from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioProcess, ScenarioSandbox, wait_until

WORKERS = 4
CALL_INTERVAL = 0.005
"""Seconds between two calls of one worker."""
CHECK = "http:/health?interval=500ms&timeout=5s&rise=1&fall=2"


class GatewayLoad:
    """A gateway, and callers at it."""

    def __init__(self, place: ScenarioSandbox) -> None:
        self.place = place
        self.xds = f"127.0.0.1:{place.port()}"
        self.listen = f"127.0.0.1:{place.port()}"
        self.url = f"http://{self.listen}"
        self.answered: Counter[str] = Counter()
        """Calls answered, by the id of who answered."""
        self.failures: list[str] = []
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30.0, trust_env=False)

    async def start_registry(self, store: str = "", *options: str) -> ScenarioProcess:
        """The registry (again), which tells the gateway."""
        return await self.place.start_registry(store, "--xds", self.xds, *options)

    async def start_gateway(self, *options: str, **environ: str) -> ScenarioProcess:
        """The gateway, ready."""
        places = ["--listen", self.listen, "--xds", self.xds, "--monitor", "off", "--access-log", "off"]
        program = ["-m", "adsum", "gateway", *places, "--concurrency", "1", *options]
        gateway = self.place.run("gateway", *program, **environ)
        await gateway.wait_for_output("listens on")
        return gateway

    async def wait_for_answer(self, path: str = "/orders/", id: str = "") -> None:
        """Return once that path leads to somebody, or to that one."""
        deadline = time.monotonic() + SCENARIO_TIMEOUT
        while (answer := await self.http.get(path)).status_code != 200 or id not in ("", answer.text):
            assert time.monotonic() < deadline, f"{path}: {answer.status_code} {answer.text}"
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def load(self, *paths: str, workers: int = WORKERS, pace: float = CALL_INTERVAL) -> AsyncIterator[None]:
        """Callers at work, at these paths in turn; at least one answer before the block and a round of them after."""
        turns = count()
        tasks = [asyncio.create_task(self._work(paths or ("/orders/",), turns, pace)) for _ in range(workers)]
        try:
            await wait_until(lambda: self.answered or self.failures)
            yield
            before = self.answered.total()
            await wait_until(lambda: self.answered.total() > before + workers)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, paths: tuple[str, ...], turns: count[int], pace: float) -> None:
        while True:
            path = paths[next(turns) % len(paths)]
            try:
                answer = await self.http.get(path)
            except httpx.HTTPError as error:
                self.failures.append(f"{path}: {type(error).__name__}: {error}")
            else:
                if answer.status_code == 200:
                    self.answered[answer.text] += 1
                else:
                    self.failures.append(f"{path}: {answer.status_code}: {answer.text}")
            await asyncio.sleep(pace)


def start_wrapped_instance(place: ScenarioSandbox, id: str, *options: str) -> ScenarioProcess:
    """An instance of orders as a program under `adsum run`."""
    program = [sys.executable, "-m", "tests.scenarios.instance_server"]
    return place.adsum("run", "--service", "orders", "--id", id, "--check", CHECK, *options, "--", *program)


async def register(api: JsonApi, service: str, found: InstanceServer, id: str = "") -> None:
    """List it, under its own id unless another is given."""
    await api.put(f"/services/{service}/instances/{id or found.id}", port=found.port, address="127.0.0.1", ttl=None)


async def drain(api: JsonApi, service: str, id: str) -> None:
    """Return when every gateway has said that it calls it no more."""
    written = await api.put(f"/services/{service}/instances/{id}/override", status="draining", wait=20)
    assert not written.get("unacknowledged"), written


def child_pid(wrapper: ScenarioProcess) -> int:
    """The process that it runs."""
    return int(Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text().split()[0])
