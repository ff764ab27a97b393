"""The command line as a person types it, on a machine without settings of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adsum.cli import main
from adsum.cli.settings import loader


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: its exit code, the data and the talk."""

    code: int
    out: str
    err: str


Adsum = Callable[..., CommandResult]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from the machine that the tests run on."""
    for name in list(os.environ):
        if name.startswith(("ADSUM_", "XDG_")) or name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "SYSTEM_FILE", tmp_path / "etc" / "adsum.toml")


@pytest.fixture
def adsum(capsys: pytest.CaptureFixture[str]) -> Adsum:
    """Run a command line in this process."""

    def run(*args: str) -> CommandResult:
        code = main.run(args)
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return run
