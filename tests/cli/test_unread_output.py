"""Commands that do more than print keep working when nobody reads their output."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.run.conftest import DEADLINE, SERVER, eventually, listing_of, port

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon

__all__ = ["port"]


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The writing end of a full pipe, as of a log shipper that hangs."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for size in (65_536, 1):
        try:
            while True:
                os.write(writing, b"x" * size)
        except BlockingIOError:
            pass
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def start(full_pipe: int, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def _start(running: list[subprocess.Popen[bytes]], pipe: int, folder: Path, *args: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ADSUM_")}
    command = [sys.executable, "-m", "adsum", *args]
    env = {**environ, "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    running.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, env=env))
    return running[-1]


@pytest.mark.parametrize("command", ["run", "register"])
def test_an_instance_is_registered_and_deregistered_although_nobody_reads_the_output(
    command: str,
    daemon: RunningDaemon,
    full_pipe: int,
    start: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    port: int,
) -> None:
    flags = ["--url", daemon.url, "--id", "a", "--port", str(port)]
    if command == "run":
        args = ["run", *flags, "--service", "orders", "--", sys.executable, "-c", SERVER.replace("print(", "str(")]
    else:
        args = ["register", *flags, "orders"]
    process = _start(start, full_pipe, tmp_path, *args)
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    process.send_signal(signal.SIGTERM)
    process.wait(DEADLINE)
    assert listing_of(daemon, "a") is None


def test_a_registry_serves_and_stops_although_nobody_reads_the_output(
    full_pipe: int, start: list[subprocess.Popen[bytes]], tmp_path: Path, port: int
) -> None:
    process = _start(
        start, full_pipe, tmp_path, "serve", "--listen", f"127.0.0.1:{port}", "--xds", "off", "--store", "memory:"
    )
    eventually("it to listen", lambda: _listens(port))
    with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=DEADLINE) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
