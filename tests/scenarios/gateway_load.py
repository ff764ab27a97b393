"""A gateway on a real Envoy under load: callers that count the results of their requests."""

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
    """A gateway and its callers."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = f"127.0.0.1:{sandbox.port()}"
        self.listen = f"127.0.0.1:{sandbox.port()}"
        self.url = f"http://{self.listen}"
        self.answered: Counter[str] = Counter()
        """Answered calls by the id of the instance."""
        self.failures: list[str] = []
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30.0, trust_env=False)

    async def start_registry(self, store: str = "", *options: str) -> ScenarioProcess:
        """Starts, or restarts, the registry of the gateway."""
        return await self.sandbox.start_registry(store, "--xds", self.xds, *options)

    async def start_gateway(self, *options: str, **environ: str) -> ScenarioProcess:
        """Starts the gateway and returns once it listens."""
        addresses = ["--listen", self.listen, "--xds", self.xds, "--monitor", "off", "--access-log", "off"]
        program = ["-m", "adsum", "gateway", *addresses, "--concurrency", "1", *options]
        gateway = self.sandbox.run("gateway", *program, **environ)
        await gateway.wait_for_output("listens on")
        return gateway

    async def wait_for_answer(self, path: str = "/orders/", id: str = "") -> None:
        """Returns once an instance answers at that path, or the instance with that id."""
        deadline = time.monotonic() + SCENARIO_TIMEOUT
        while (answer := await self.http.get(path)).status_code != 200 or id not in ("", answer.text):
            assert time.monotonic() < deadline, f"{path}: {answer.status_code} {answer.text}"
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def load(self, *paths: str, workers: int = WORKERS, pace: float = CALL_INTERVAL) -> AsyncIterator[None]:
        """Runs callers that request these paths in turn.

        At least one request has a result before the block, and a round of requests is answered after it.
        """
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


def start_wrapped_instance(sandbox: ScenarioSandbox, id: str, *options: str) -> ScenarioProcess:
    """Starts an instance of orders as a program under `adsum run`."""
    program = [sys.executable, "-m", "tests.scenarios.instance_server"]
    return sandbox.adsum("run", "--service", "orders", "--id", id, "--check", CHECK, *options, "--", *program)


async def register(api: JsonApi, service: str, found: InstanceServer, id: str = "") -> None:
    """Registers the instance, with its own id unless another one is given."""
    await api.put(f"/services/{service}/instances/{id or found.id}", port=found.port, address="127.0.0.1", ttl=None)


async def drain(api: JsonApi, service: str, id: str) -> None:
    """Drains the instance and returns once every gateway has confirmed that it routes around it."""
    written = await api.put(f"/services/{service}/instances/{id}/override", status="draining", wait=20)
    assert not written.get("unacknowledged"), written


def child_pid(wrapper: ScenarioProcess) -> int:
    """Returns the id of the process that the wrapper runs."""
    return int(Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text().split()[0])
