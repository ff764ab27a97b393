"""Real processes for the scenarios, started with an environment of their own and stopped by their ids."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx

from adsum import launcher
from adsum.run.port import PortClaim, claim_free_port

SCENARIO_TIMEOUT: Final = 30.0
"""Seconds after which a wait of a test fails."""
POLL_INTERVAL: Final = 0.02
ROOT: Final = Path(__file__).parents[2]
ADSUM_COMMAND: Final = (sys.executable, "-m", "adsum")


class ScenarioProcess:
    """A program of a scenario. Its output goes to files, so that it never blocks on a pipe."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, **environ: str) -> None:
        self.name = name
        self._out, self._errors = folder / f"{name}.out", folder / f"{name}.err"
        settings = folder / "adsum.toml"
        settings.touch()
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("ADSUM_", "XDG_", "COV_", "GRPC_"))
        }
        with self._out.open("ab") as out, self._errors.open("ab") as errors:
            self.process = launcher.start(
                argv,
                cwd=ROOT,
                env={**kept, "ADSUM_CONFIG": str(settings), "XDG_CACHE_HOME": str(folder / "cache"), **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        """The standard output so far."""
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        """The standard error so far."""
        return self._errors.read_text()

    async def wait_for_output(self, text: str) -> None:
        """Returns once either output contains `text`. Fails if the program ends before, or after the timeout."""
        await wait_until(lambda: text in self.stdout + self.stderr or self.process.poll() is not None, self._describe)
        assert text in self.stdout + self.stderr, self._describe()

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Waits for the end of the program. Returns its exit code."""
        await wait_until(lambda: self.process.poll() is not None, lambda: f"{self.name} runs: {self._describe()}")
        return self.process.returncode

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and waits for the end of the program. Returns its exit code."""
        self.send_signal(number)
        return await self.wait()

    def kill(self) -> None:
        """Kills the program if it still runs, and reaps it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SCENARIO_TIMEOUT)

    def _describe(self) -> str:
        return f"{self.name} ({self.process.poll()}): {self.stdout[-2000:]}\n{self.stderr[-4000:]}"


class ScenarioRegistry(ScenarioProcess):
    """`adsum serve`, at the same port after every restart."""

    def __init__(self, folder: Path, port: int, store: str, number: int, options: Sequence[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        argv = [
            *ADSUM_COMMAND,
            "serve",
            "--listen",
            f"127.0.0.1:{port}",
            "--xds",
            "off",
            "--store",
            store,
            "--node",
            "n1",
        ]
        argv += options  # The last value of an option counts.
        super().__init__(f"node{number}", argv, folder)

    @property
    def memory_bytes(self) -> int:
        """The resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


class ScenarioSandbox:
    """A folder, ports and the processes of one scenario. `close` kills all of the processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[ScenarioProcess] = []
        self._claims: list[PortClaim] = []
        self.node_port = self.port()
        self.url = f"http://127.0.0.1:{self.node_port}"

    def port(self) -> int:
        """Claims a free port for the time of the scenario."""
        claim = claim_free_port(Random())
        self._claims.append(claim)
        return claim.port

    @property
    def sqlite_url(self) -> str:
        return f"sqlite:///{self.folder / 'adsum.db'}"

    async def start_registry(self, store: str = "", *options: str) -> ScenarioRegistry:
        """Starts, or restarts, the registry and returns once it listens."""
        node = ScenarioRegistry(self.folder, self.node_port, store or self.sqlite_url, len(self._children), options)
        self._children.append(node)
        await node.wait_for_output("listens on")
        return node

    def run(self, name: str, *argv: str, **environ: str) -> ScenarioProcess:
        """Starts a Python program: `argv` are the arguments of the interpreter."""
        return self.program(name, sys.executable, *argv, **{"ADSUM_URL": self.url, **environ})

    def program(self, name: str, *argv: str, **environ: str) -> ScenarioProcess:
        """Starts any program."""
        child = ScenarioProcess(f"{len(self._children)}-{name}", argv, self.folder, **environ)
        self._children.append(child)
        return child

    def adsum(self, *argv: str) -> ScenarioProcess:
        """Starts a command of the CLI."""
        return self.run(argv[0], "-m", "adsum", *argv)

    def close(self) -> None:
        for child in self._children:
            child.kill()
        for claim in self._claims:
            claim.release()


async def wait_until(
    condition: Callable[[], object], describe: Callable[[], object] = lambda: "", timeout: float = SCENARIO_TIMEOUT
) -> None:
    """Returns once `condition` is true. Fails after `timeout` seconds with the text of `describe`."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {describe()}"
        await asyncio.sleep(POLL_INTERVAL)


class JsonApi:
    """A client of the native API without the library: JSON in, JSON out."""

    def __init__(self, url: str) -> None:
        self.http = httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=SCENARIO_TIMEOUT, trust_env=False)

    async def __aenter__(self) -> JsonApi:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, path: str, **params: str) -> Any:
        answer = await self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def put(self, path: str, /, **body: object) -> Any:
        answer = await self.http.put(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def delete(self, path: str, **params: str) -> Any:
        answer = await self.http.delete(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def statuses(self, service: str) -> dict[str, str]:
        """Returns the statuses of the service's instances by id."""
        return {item["id"]: item["status"] for item in (await self.get(f"/services/{service}"))["instances"]}

    async def wait_for_statuses(
        self, service: str, expected: Callable[[dict[str, str]], bool], timeout: float = SCENARIO_TIMEOUT
    ) -> None:
        """Returns once the statuses of the service are as expected."""
        deadline = time.monotonic() + timeout
        while not expected(statuses := await self.statuses(service)):
            assert time.monotonic() < deadline, f"not in time: {statuses}"
            await asyncio.sleep(2 * POLL_INTERVAL)
