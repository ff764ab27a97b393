"""Real processes for the scenarios: started with an environment of their own, signalled and reaped by their ids."""

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
from adsum.run.port import Claim, claim_free_port

PATIENCE: Final = 30.0
"""Seconds after which what a test waits for is taken not to happen."""
POLL: Final = 0.02
ROOT: Final = Path(__file__).parents[2]
ADSUM: Final = (sys.executable, "-m", "adsum")


class Child:
    """A program; what it says is in files of its own, so that nobody has to read for it to go on."""

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
    def out(self) -> str:
        """What it said on standard output so far."""
        return self._out.read_text()

    @property
    def errors(self) -> str:
        """What it said on standard error so far."""
        return self._errors.read_text()

    async def said(self, words: str) -> None:
        """Return when it has said `words` on either; fails if it ends or is silent for too long."""
        await until(lambda: words in self.out + self.errors or self.process.poll() is not None, self._story)
        assert words in self.out + self.errors, self._story()

    def tell(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        await until(lambda: self.process.poll() is not None, lambda: f"{self.name} goes on: {self._story()}")
        return self.process.returncode

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it; its exit code once it has ended."""
        self.tell(number)
        return await self.ended()

    def clear(self) -> None:
        """Leave nothing of it, however it stands."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def _story(self) -> str:
        return f"{self.name} ({self.process.poll()}): {self.out[-2000:]}\n{self.errors[-4000:]}"


class Node(Child):
    """`adsum serve` on a port that it keeps over restarts."""

    def __init__(self, folder: Path, port: int, store: str, number: int, options: Sequence[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        argv = [*ADSUM, "serve", "--listen", f"127.0.0.1:{port}", "--xds", "off", "--store", store, "--node", "n1"]
        argv += options  # What is said last counts.
        super().__init__(f"node{number}", argv, folder)

    @property
    def memory(self) -> int:
        """Bytes that it holds in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


class Place:
    """A folder, ports and the processes of one scenario; `clear` leaves none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []
        self._claims: list[Claim] = []
        self.node_port = self.port()
        self.url = f"http://127.0.0.1:{self.node_port}"

    def port(self) -> int:
        """A port that nobody else takes while the scenario lasts."""
        claim = claim_free_port(Random())
        self._claims.append(claim)
        return claim.port

    @property
    def sqlite(self) -> str:
        return f"sqlite:///{self.folder / 'adsum.db'}"

    async def serve(self, store: str = "", *options: str) -> Node:
        """The registry (again), ready."""
        node = Node(self.folder, self.node_port, store or self.sqlite, len(self._children), options)
        self._children.append(node)
        await node.said("listens on")
        return node

    def run(self, name: str, *argv: str, **environ: str) -> Child:
        """Any program of ours: `argv` follows `python`."""
        return self.program(name, sys.executable, *argv, **{"ADSUM_URL": self.url, **environ})

    def program(self, name: str, *argv: str, **environ: str) -> Child:
        """Any program."""
        child = Child(f"{len(self._children)}-{name}", argv, self.folder, **environ)
        self._children.append(child)
        return child

    def adsum(self, *argv: str) -> Child:
        """A command of the CLI."""
        return self.run(argv[0], "-m", "adsum", *argv)

    def clear(self) -> None:
        for child in self._children:
            child.clear()
        for claim in self._claims:
            claim.release()


async def until(true: Callable[[], object], why: Callable[[], object] = lambda: "", patience: float = PATIENCE) -> None:
    """Return once `true` is; fails after `patience` seconds, saying `why`."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"not in time: {why()}"
        await asyncio.sleep(POLL)


class Asking:
    """The native API, as any program asks it: JSON in, JSON out."""

    def __init__(self, url: str) -> None:
        self.http = httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=PATIENCE, trust_env=False)

    async def __aenter__(self) -> Asking:
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
        """How the service's instances stand, by id."""
        return {each["id"]: each["status"] for each in (await self.get(f"/services/{service}"))["instances"]}

    async def stand(self, service: str, expected: Callable[[dict[str, str]], bool], patience: float = PATIENCE) -> None:
        """Return once the statuses of the service are as expected."""
        deadline = time.monotonic() + patience
        while not expected(statuses := await self.statuses(service)):
            assert time.monotonic() < deadline, f"not in time: {statuses}"
            await asyncio.sleep(2 * POLL)
