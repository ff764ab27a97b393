"""The processes that are measured: started here, measured by the system's accounting, and stopped by their ids."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

FIRST_PORT, LAST_PORT = 20_000, 32_000
"""The range of ports for servers. It is below the ephemeral ports, which outgoing connections may occupy."""
START_TIMEOUT: Final = 60.0
"""Seconds within which a process must be up; else it is stopped, and the end of its log is shown."""
STOP_TIMEOUT: Final = 20.0
"""Seconds that a process may take to stop after SIGTERM; then it is killed."""
LOG_LINES: Final = 5
"""Lines from the end of a log that the message of a failed start includes."""

_SCHEDULED: Final = 2
"""CPUCLOCK_SCHED of linux/posix-timers.h."""


class BenchmarkFailed(Exception):
    """A benchmark has no result although everything that it needs is installed; the message says why."""


class MeasuredProcess:
    """A process. Its output goes to a file, so that it never waits for a reader."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._log = folder / f"{name}-{time.monotonic_ns()}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def wait_until(self, is_up: Callable[[], bool], timeout: float = START_TIMEOUT) -> float:
        """Polls `is_up`, and returns the seconds until it was true. Raises `BenchmarkFailed`."""
        began = time.monotonic()
        while not is_up():
            code, waited = self._process.poll(), time.monotonic() - began
            if code is not None or waited > timeout:
                self.stop()
                problem = f"is not up after {waited:.0f} s" if code is None else f"ended with code {code}"
                raise BenchmarkFailed(f"{self.name} does not start: it {problem}: {self._log_end()}")
            time.sleep(0.02)
        return time.monotonic() - began

    def _log_end(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        # Lines of valgrind start with "==".
        return " / ".join([line for line in lines if not line.startswith("==")][-LOG_LINES:])

    def stop(self) -> None:
        """Sends SIGTERM, and kills the process if it does not end; idempotent."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kills the process, as a crash would end it."""
        self._process.kill()
        self._process.wait()

    def cpu(self) -> float:
        """Returns the seconds of CPU that all its threads have used, in user and system mode."""
        # The clock id of clock_getcpuclockid(3): precise to the nanosecond, while /proc counts in ticks of 10 ms.
        return time.clock_gettime(~self.pid << 3 | _SCHEDULED)

    def memory(self) -> int:
        """Returns its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """Returns a port on which no program listens now."""
    for _ in range(200):
        port = random.randrange(FIRST_PORT, LAST_PORT)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BenchmarkFailed(f"no port from {FIRST_PORT} to {LAST_PORT} is free")


def is_listening(port: int) -> bool:
    """Returns whether a program listens on that port."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
