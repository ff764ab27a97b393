"""Real servers in processes of their own, and callers that never stop."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from adsum.core.model import Listing, Status
from tests.support.registry_daemon import RunningDaemon

ROOT = Path(__file__).parents[3]
WAIT_TIMEOUT = 40.0


class ServerProcess:
    """A server. `close` kills its whole session if it is still running."""

    def __init__(self, daemon: RunningDaemon, *argv: str, runtime: Path, cwd: Path = ROOT) -> None:
        environ = {**os.environ, "ADSUM_URL": daemon.url, "XDG_RUNTIME_DIR": str(runtime), "PYTHONWARNINGS": "ignore"}
        self._log = (runtime / f"{time.monotonic_ns()}.log").open("w+")
        self._running = subprocess.Popen(
            [sys.executable, "-m", *argv],
            cwd=cwd,
            env=environ,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.pid = self._running.pid

    @property
    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    @property
    def has_exited(self) -> bool:
        return self._running.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._running.poll()

    def signal(self, number: int) -> None:
        self._running.send_signal(number)

    def workers(self) -> list[int]:
        """The processes that it started, without resource trackers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"resource_tracker" not in _command(pid)]

    async def wait_for_exit(self) -> None:
        """Waits until it has exited."""
        await wait_until(lambda: self.has_exited, "it ended", self)

    async def wait_until_replaced(self, worker: int, count: int) -> None:
        """Waits until there are `count` workers without that one."""
        await wait_until(lambda: worker not in self.workers() and len(self.workers()) == count, "it was replaced", self)

    def close(self) -> None:
        if not self.has_exited:
            os.killpg(self.pid, signal.SIGKILL)
        self._running.wait(20.0)
        self._log.close()


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # It has exited in the meantime.


@contextmanager
def starting(daemon: RunningDaemon, runtime: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers: `start("uvicorn", …)`."""
    started: list[ServerProcess] = []

    def start(*argv: str, cwd: Path = ROOT) -> ServerProcess:
        started.append(ServerProcess(daemon, *argv, runtime=runtime, cwd=cwd))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.close()


def listed(daemon: RunningDaemon) -> dict[str, Listing]:
    """The listings of orders in the registry."""
    return dict(daemon.registry.snapshot.service("orders").listings)


def passing(daemon: RunningDaemon) -> list[str]:
    return [id for id, listing in listed(daemon).items() if listing.status is Status.PASSING]


async def wait_until(condition: Callable[[], bool], what: str, *processes: ServerProcess) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "\n".join([what, *(process.log for process in processes)])
        await asyncio.sleep(0.02)


class CallResults:
    """The answers and failures of calls."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    async def wait_for_answers(self, count: int = 30) -> None:
        """Returns once `count` more calls were answered."""
        target = self.answers.total() + count
        await wait_until(lambda: self.answers.total() >= target or bool(self.failures), "calls are answered")


@asynccontextmanager
async def load(call: Callable[[], object], callers: int = 4) -> AsyncIterator[CallResults]:
    """Calls without a pause. `call` returns, or awaits, the text of a response; a blocking one runs in threads."""
    results, stopping = CallResults(), asyncio.Event()

    async def keep_calling() -> None:
        while not stopping.is_set():
            try:
                answer = call() if inspect.iscoroutinefunction(call) else asyncio.to_thread(call)
                results.answers[str(await answer)] += 1
            except Exception as error:
                results.failures.append(f"{type(error).__name__}: {error}")

    tasks = [asyncio.create_task(keep_calling()) for _ in range(callers)]
    try:
        yield results
    finally:
        stopping.set()
        await asyncio.gather(*tasks)
