"""Where Envoy is, and which one it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.core.errors import AdsumError

MIN_VERSION: Final = (1, 34)
"""The oldest version that knows everything we say to it."""
VERSION_TIMEOUT: Final = 20.0
"""Seconds that it has to tell its version; a cold disk is slow, and the program is large."""
INSTALL_HINT: Final = "pip install 'adsum[gateway]'"

_VERSION: Final = re.compile(r"/(\d+)\.(\d+)\.(\d+)(?:-[\w.]+)?/")


class EnvoyNotFound(AdsumError):
    """There is none, it can't be run, or it is too old; the sentence has the remedy."""


@dataclass(frozen=True, slots=True)
class EnvoyBinary:
    """An Envoy that can be run."""

    path: Path
    version: str


def find_envoy(path: str = "") -> EnvoyBinary:
    """The Envoy that was named, else the one beside this Python, else the one on PATH. Raises `EnvoyNotFound`."""
    found = _named(path) if path else _beside_python() or _on_path()
    return EnvoyBinary(found, _version(found))


def _named(named: str) -> Path:
    found = shutil.which(named)
    if found is None:
        why = "can't be executed" if Path(named).exists() else "is not there"
        raise EnvoyNotFound(
            f"{named} {why}; --envoy must name Envoy's binary, and without it {INSTALL_HINT} brings one"
        )
    return Path(found).absolute()


def _beside_python() -> Path | None:
    beside = Path(sys.executable).parent / "envoy"
    return beside if os.access(beside, os.X_OK) else None


def _on_path() -> Path:
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyNotFound(f"a gateway needs Envoy, and there is none: {INSTALL_HINT}, or name one by --envoy")
    return Path(found).absolute()


def _version(path: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the operator names the program
            [path, "--version"], capture_output=True, timeout=VERSION_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = (
            (error.strerror or str(error)) if isinstance(error, OSError) else f"no answer within {VERSION_TIMEOUT:g} s"
        )
        raise EnvoyNotFound(f"{path} can't be run: {why}") from None
    said = done.stdout.decode(errors="replace")
    version = _VERSION.search(said)
    if version is None:
        raise EnvoyNotFound(f"{path} does not say that it is an Envoy; {INSTALL_HINT} brings one")
    if tuple(map(int, version.groups()[:2])) < MIN_VERSION:
        raise EnvoyNotFound(
            f"{path} is Envoy {_text(version.groups())}, and {_text(MIN_VERSION)} is the least: {INSTALL_HINT}"
        )
    return _text(version.groups())


def _text(version: Iterable[object]) -> str:
    return ".".join(map(str, version))
