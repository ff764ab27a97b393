"""Runs command lines on a machine without settings, and starts a registry for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adsum.cli import main
from adsum.cli.settings import loader
from adsum.client.credentials import find

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon


@dataclass(frozen=True)
class CommandResult:
    """The result of a command: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Adsum = Callable[..., CommandResult]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Removes the settings of the machine that runs the tests."""
    for name in list(os.environ):
        if name.startswith(("ADSUM_", "XDG_")) or name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(find, "SYSTEM_FOLDER", tmp_path / "etc" / "registry")
    monkeypatch.setattr(find, "SYSTEM_OPERATOR_FOLDER", tmp_path / "var" / "operator")
    monkeypatch.setattr(loader, "SYSTEM_FILE", tmp_path / "etc" / "adsum.toml")


@pytest.fixture
def adsum(capsys: pytest.CaptureFixture[str]) -> Adsum:
    """Runs a command line in this process."""

    def run(*args: str) -> CommandResult:
        code = main.run(args)
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return run


@pytest.fixture
def registry(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> RunningDaemon:
    """A registry that the commands use by default, as the actor ann."""
    monkeypatch.setenv("ADSUM_URL", daemon.url)
    monkeypatch.setenv("ADSUM_ACTOR", "ann")
    return daemon


@pytest.fixture
def orders(registry: RunningDaemon, adsum: Adsum) -> RunningDaemon:
    """Two instances of orders, `a` and `b`."""
    for id, port in (("a", "8001"), ("b", "8002")):
        done = adsum(
            "register", "orders", "--id", id, "--port", port, "--ttl", "none", "--tag", id, "--metadata", "k=v"
        )
        assert done.code == 0, done.err
    return registry


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command that keeps running; it is killed after the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "adsum", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()
