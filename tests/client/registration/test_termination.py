"""Programs that register in a block are drained and deregistered before a signal ends them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adsum.client.client import Client
from adsum.client.registration.termination import MIN_HANDLER_CHECK_PAUSE
from tests.scenarios.processes import ScenarioProcess, ScenarioSandbox, wait_until
from tests.support.registry_daemon import RunningDaemon

KILLED = -signal.SIGTERM
TERMINATED = 143
SERVING = ("server", "uvicorn", "uvloop-uvicorn", "group", "another-task", "several", "sync-server", "sync-own-handler")
"""Bodies that answer HTTP."""


class BlockProgram:
    """A program of `tests.client.registration.block_programs`, and the changes that the registry recorded for it."""

    def __init__(self, sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str, *wrapper: str) -> None:
        self.kind, self.port = kind, sandbox.port()
        argv = (
            *wrapper,
            *([sys.executable] if wrapper else []),
            "-m",
            "tests.client.registration.block_programs",
            kind,
            str(self.port),
        )
        self.child: ScenarioProcess = sandbox.run(kind, *argv, ADSUM_URL=daemon.url)
        self._daemon = daemon

    async def in_its_body(self) -> None:
        """Return once the program is in its body and listed, and, for a server, answers."""
        await self.child.wait_for_output("in the body")
        if self.kind in SERVING:
            await wait_until(self._answers)
        if "uvicorn" in self.kind:
            await asyncio.sleep(
                3 * MIN_HANDLER_CHECK_PAUSE
            )  # Until the block has noticed the server's signal handlers.

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def causes(self, id: str = "o1") -> list[tuple[str, str]]:
        """The causes and reasons of the instance's changes, the newest first, without those of checks."""
        answer = httpx.get(
            f"{self._daemon.url}/api/v1/changes", params={"service": "orders", "id": id}, trust_env=False
        )
        changes = answer.json()["changes"]
        return [(each["cause"], each.get("reason", "")) for each in changes if not each["cause"].startswith("check")]


DRAINED = [("deregistered", "the provider stopped"), ("drained", "the provider is stopping"), ("registered", "")]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[ScenarioSandbox]:
    found = ScenarioSandbox(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize(
    "kind",
    [
        "sleep",
        "uvloop-uvicorn",
        "group",
        "another-task",
        "grpc",
        "sync-server",
        "sync-pause",
        "sync-uvicorn",
        "sync-grpc",
    ],
)
async def test_sigterm_drains_and_deregisters_and_the_program_cleans_up(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str
) -> None:
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    assert await program.child.stop() == TERMINATED, program.child.stderr
    assert program.child.stdout == "in the body\ncleaned up\n"
    assert program.causes() == DRAINED
    if kind != "another-task":  # asyncio.run reports exceptions of tasks other than its own.
        assert "Traceback" not in program.child.stderr


@pytest.mark.parametrize("kind", ["uvloop-sleep", "server", "grpc", "sync-wait"])
async def test_sigint_drains_and_deregisters_and_raises_keyboard_interrupt(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str
) -> None:
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    assert await program.child.stop(signal.SIGINT) == -signal.SIGINT, program.child.stderr
    assert program.child.stdout == "in the body\ncleaned up\n"
    assert program.child.stderr.rstrip().endswith("KeyboardInterrupt")
    assert program.causes() == DRAINED


@pytest.mark.parametrize("kind", ["own-loop-handler", "sync-own-handler"])
async def test_a_program_with_its_own_sigterm_handler_still_has_it_called(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str
) -> None:
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    assert await program.child.stop() == 0, program.child.stderr
    assert "after the block\ncleaned up\n" in program.child.stdout
    assert program.causes() == DRAINED
    if kind.startswith("sync"):
        assert "handled\n" in program.child.stdout
        assert "restored: True\n" in program.child.stdout


async def test_all_instances_of_a_process_are_drained_at_the_same_time(
    sandbox: ScenarioSandbox, daemon: RunningDaemon
) -> None:
    program = BlockProgram(sandbox, daemon, "several")
    await program.in_its_body()
    assert await program.child.stop() == TERMINATED, program.child.stderr
    assert program.causes("o1") == program.causes("o2") == DRAINED


@pytest.mark.parametrize("kind", ["signals-off", "sync-signals-off"])
async def test_with_signals_off_sigterm_kills_as_usual(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str
) -> None:
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    assert await program.child.stop() == KILLED
    assert program.causes() == [("registered", "")]


@pytest.mark.parametrize("kind", ["uvicorn", "sync-server"])
async def test_calls_are_answered_until_consumers_have_acknowledged(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str
) -> None:
    """While a consumer has not acknowledged the drain, the drain lasts and the server serves."""
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    with httpx.stream(
        "GET", f"{daemon.url}/api/v1/watch", params={"service": "orders", "acks": "true"}, trust_env=False
    ) as mute:
        assert mute.status_code == 200
        began = time.monotonic()
        program.child.send_signal(signal.SIGTERM)
        await wait_until(lambda: ("drained", "the provider is stopping") in program.causes())
        while len(program.causes()) < len(DRAINED):
            assert program._answers() or len(program.causes()) == len(DRAINED)
            await asyncio.sleep(0.05)
        assert time.monotonic() - began > 1.5, "the drain waits for 2 s"
    assert await program.child.wait() == TERMINATED, program.child.stderr


@pytest.mark.parametrize(("kind", "status"), [("server", KILLED), ("sync-server", KILLED)])
async def test_a_second_sigterm_kills_at_once(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str, status: int
) -> None:
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    with httpx.stream(
        "GET", f"{daemon.url}/api/v1/watch", params={"service": "orders", "acks": "true"}, trust_env=False
    ) as mute:
        assert mute.status_code == 200
        program.child.send_signal(signal.SIGTERM)
        await wait_until(lambda: ("drained", "the provider is stopping") in program.causes())
        assert await program.child.stop() == status
    assert program.causes() == DRAINED[1:]


@pytest.mark.parametrize("kind", ["server", "sync-server"])
async def test_a_second_sigint_ends_the_drain_and_deregisters(
    sandbox: ScenarioSandbox, daemon: RunningDaemon, kind: str
) -> None:
    program = BlockProgram(sandbox, daemon, kind)
    await program.in_its_body()
    with httpx.stream(
        "GET", f"{daemon.url}/api/v1/watch", params={"service": "orders", "acks": "true"}, trust_env=False
    ) as mute:
        assert mute.status_code == 200
        program.child.send_signal(signal.SIGINT)
        await wait_until(lambda: ("drained", "the provider is stopping") in program.causes())
        began = time.monotonic()
        assert await program.child.stop(signal.SIGINT) == -signal.SIGINT, program.child.stderr
        assert time.monotonic() - began < 1.5, "the drain would have waited for 2 s"
    assert program.causes() == DRAINED


async def test_adsum_run_exits_with_the_status_of_such_a_program(
    sandbox: ScenarioSandbox, daemon: RunningDaemon
) -> None:
    port = sandbox.port()
    command = ("-m", "adsum", "run", "--service", "wrapped", "--port", str(port), "--", sys.executable)
    child = sandbox.run(
        "run", *command, "-m", "tests.client.registration.block_programs", "server", str(port), ADSUM_URL=daemon.url
    )
    await child.wait_for_output("in the body")
    await wait_until(lambda: daemon.registry.snapshot.service("wrapped").listings, lambda: child.stderr)
    began = time.monotonic()
    assert await child.stop() == TERMINATED, child.stderr
    assert time.monotonic() - began < 5.0
    assert "stopped by SIGTERM" in child.stderr
    for service in ("wrapped", "orders"):
        assert not daemon.registry.snapshot.service(service).listings


async def test_the_signal_handlers_are_as_before_once_the_last_block_has_ended(daemon: RunningDaemon) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with Client(daemon.url, cache=False) as client:
        async with client.register("orders", 1, id="o1"), client.register("orders", 2, id="o2"):
            assert signal.getsignal(signal.SIGTERM) is not before[0]
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
        async with client.register("orders", 1, id="o1", signals=False):
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


IGNORED = """
import signal, sys, adsum
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with adsum.SyncClient(cache=False) as client, client.register("orders", 1):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
"""


def test_ignored_signals_stay_ignored(daemon: RunningDaemon) -> None:
    environ = {"ADSUM_URL": daemon.url, "PATH": ""}
    done = subprocess.run([sys.executable, "-c", IGNORED], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


HANGING = """
import os, signal, time
from concurrent.futures import Future
from adsum.client.registration.termination import RegistrationBlock
RegistrationBlock(Future, None, timeout=0.2).enter()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_a_block_that_does_not_shut_down_in_time_does_not_delay_the_signal() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=50)
    assert done.returncode == KILLED, done.stderr


FORKING = """
import os, signal, time, adsum
with adsum.SyncClient(cache=False) as client, client.register("orders", 1):
    running, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready, b"!")
        time.sleep(60)
    os.read(running, 1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
"""


def test_sigterm_kills_a_forked_child_as_usual(daemon: RunningDaemon) -> None:
    environ = {"ADSUM_URL": daemon.url, "PATH": ""}
    done = subprocess.run([sys.executable, "-c", FORKING], env=environ, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
