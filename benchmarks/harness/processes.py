"""The processes that are measured: started here, watched through the system's books, stopped by their own id."""

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
"""Below the range from which the system takes ports for outgoing connections: those could be in the way."""
START_TIMEOUT: Final = 60.0
"""Seconds within which a process must be up; else it is stopped and its last words are shown."""
STOP_TIMEOUT: Final = 20.0
"""Seconds that a process may take to stop when asked to; then it is killed."""

_SCHEDULED: Final = 2
"""CPUCLOCK_SCHED of linux/posix-timers.h."""


class BenchmarkUnavailable(Exception):
    """A benchmark can't be run here, in a sentence."""


class MeasuredProcess:
    """A process of ours. What it says goes to a file, so that it never waits for a reader."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._log = folder / f"{name}-{time.monotonic_ns()}.log"
        with self._log.open("wb") as said:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def wait_until(self, is_up: Callable[[], bool]) -> float:
        """Seconds until `up`, asked again and again. Raises `BenchmarkUnavailable`."""
        began = time.monotonic()
        while not is_up():
            if self._process.poll() is not None or time.monotonic() - began > START_TIMEOUT:
                self.stop()
                words = self._log.read_text(errors="replace").strip().splitlines()[-5:]
                raise BenchmarkUnavailable(f"{self.name} does not come up: {' / '.join(words)}")
            time.sleep(0.02)
        return time.monotonic() - began

    def stop(self) -> None:
        """Ask it to end; kill it if it does not. Idempotent."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def cpu(self) -> float:
        """Seconds of processor time that all its threads have used, in user and system mode."""
        # As clock_getcpuclockid(3) makes it of a process id: to the nanosecond, where /proc counts in ticks of 10 ms.
        return time.clock_gettime(~self.pid << 3 | _SCHEDULED)

    def memory(self) -> int:
        """Bytes of memory that it occupies (resident)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """A port on which nobody listens now."""
    for _ in range(200):
        port = random.randrange(FIRST_PORT, LAST_PORT)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BenchmarkUnavailable(f"no port from {FIRST_PORT} to {LAST_PORT} is free")


def is_listening(port: int) -> bool:
    """Whether somebody listens on that port."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
