"""Finds Envoy's binary and its version."""

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
"""The oldest version that supports everything in our configuration."""
VERSION_TIMEOUT: Final = 20.0
"""Seconds that `envoy --version` may take. A cold disk is slow, and the program is large."""
INSTALL_HINT: Final = "pip install 'adsum[gateway]'"

_VERSION: Final = re.compile(r"/(\d+)\.(\d+)\.(\d+)(?:-[\w.]+)?/")


class EnvoyNotFound(AdsumError):
    """There is no Envoy, it can't be run, or it is too old. The message names the remedy."""


@dataclass(frozen=True, slots=True)
class EnvoyBinary:
    """An Envoy that can be run."""

    path: Path
    version: str


def find_envoy(path: str = "") -> EnvoyBinary:
    """Returns the Envoy at `path`, else the one beside this Python, else the one on PATH. Raises `EnvoyNotFound`."""
    found = _at(path) if path else _beside_python() or _on_path()
    return EnvoyBinary(found, _version(found))


def _at(path: str) -> Path:
    found = shutil.which(path)
    if found is None:
        problem = "can't be executed" if Path(path).exists() else "does not exist"
        raise EnvoyNotFound(
            f"{path} {problem}; --envoy must name Envoy's binary; without --envoy, {INSTALL_HINT} installs one"
        )
    return Path(found).absolute()


def _beside_python() -> Path | None:
    beside = Path(sys.executable).parent / "envoy"
    return beside if os.access(beside, os.X_OK) else None


def _on_path() -> Path:
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyNotFound(f"a gateway needs Envoy, and none was found: {INSTALL_HINT}, or name a binary with --envoy")
    return Path(found).absolute()


def _version(path: Path) -> str:
    try:
        process = subprocess.run(  # noqa: S603 - the operator chose the program
            [path, "--version"], capture_output=True, timeout=VERSION_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = (
            (error.strerror or str(error)) if isinstance(error, OSError) else f"no answer within {VERSION_TIMEOUT:g} s"
        )
        raise EnvoyNotFound(f"{path} can't be run: {problem}") from None
    output = process.stdout.decode(errors="replace")
    version = _VERSION.search(output)
    if version is None:
        raise EnvoyNotFound(f"{path} is not an Envoy, as its --version shows; {INSTALL_HINT} installs one")
    if tuple(map(int, version.groups()[:2])) < MIN_VERSION:
        raise EnvoyNotFound(
            f"{path} is Envoy {_text(version.groups())}; a gateway needs {_text(MIN_VERSION)} or later: {INSTALL_HINT}"
        )
    return _text(version.groups())


def _text(version: Iterable[object]) -> str:
    return ".".join(map(str, version))
