"""Starts `adsum run` as a real process; it is killed by its id after the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from adsum.core.model import Listing
from adsum.run.port import claim_free_port

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon

DEADLINE = 30.0
"""Seconds within which an event must happen, even on a slow machine."""

SERVER = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("up", flush=True)
server.serve_forever()
"""
"""A program that does not use Adsum. SIGTERM kills it."""


def eventually(label: str, done: Callable[[], object]) -> None:
    """Wait until `done` is true; fail with `label` after the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline, f"waited for {label}"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Returns whether the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class WrappedProgram:
    """A running `adsum run`."""

    def __init__(self, url: str, args: tuple[str, ...], program: tuple[str, ...], folder: Path) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ADSUM_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adsum", "run", *args, "--", *program],
                stdout=log,
                stderr=log,
                env={**environ, "ADSUM_URL": url, "XDG_CONFIG_HOME": str(folder), "PYTHONUNBUFFERED": "1"},
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for_output(self, text: str) -> None:
        """Wait until the output contains the text."""
        eventually(f"{text!r} in {self.output!r}", lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output

    def children(self) -> list[int]:
        """Returns its child processes, zombies included."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        """Wait until it has ended and return its exit code."""
        return self.process.wait(DEADLINE)


Wrap = Callable[..., WrappedProgram]


@pytest.fixture
def wrap(tmp_path: Path) -> Iterator[Wrap]:
    """Starts `adsum run *args -- *program` against the registry at `url`."""
    running: list[WrappedProgram] = []

    def start(url: str, *args: str, program: tuple[str, ...] = (sys.executable, "-c", SERVER)) -> WrappedProgram:
        running.append(WrappedProgram(url, ("--service", "orders", *args), program, tmp_path))
        return running[-1]

    yield start
    for wrapped in running:
        with suppress(FileNotFoundError):
            for pid in wrapped.children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        wrapped.process.kill()
        wrapped.process.wait()


@pytest.fixture
def port() -> Iterator[int]:
    """A free port below the ephemeral ports."""
    claim = claim_free_port(Random())
    yield claim.port
    claim.release()


def listing_of(daemon: RunningDaemon, id: str) -> Listing | None:
    """Returns the listing of an instance of orders."""
    service = daemon.registry.snapshot.services.get("orders")
    return service.listings.get(id) if service is not None else None
