"""gRPC clients in Go, Node.js and Java, built once a machine in the user's cache folder if there is a toolchain.

Each client calls a target again and again and prints the name of the instance that answered, or `failed: …`. Without a
toolchain or its packages, the test is skipped with the name of what is missing. A client that does not compile fails
the test.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs import need

HERE: Final = Path(__file__).parent
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adsum-tests"
DOWNLOAD_TIMEOUT: Final = 180.0
"""Seconds within which packages must be downloaded; after that they count as missing."""
BUILD_TIMEOUT: Final = 600.0
"""Seconds within which a build must end. Go's first build takes a minute of processor time."""


def python() -> tuple[str, ...]:
    """Returns the command of the Python caller, which uses gRPC's C++ core."""
    return (sys.executable, "-m", "tests.scenarios.grpc.grpc_caller")


def go() -> tuple[str, ...]:
    sources = HERE / "go" / "xds"
    wanted = _number(r"^go (\d+)\.(\d+)", (sources / "go.mod").read_text())
    tool = str(need("go-toolchain"))
    # No other toolchain is downloaded, and no settings of the environment apply.
    environ = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GO111MODULE": "on"}
    installed = _number(r"go(\d+)\.(\d+)", _output([tool, "env", "GOVERSION"], environ))
    if installed < wanted:
        pytest.skip(
            f"Go {installed[0]}.{installed[1]} is too old for today's grpc-go, which needs {wanted[0]}.{wanted[1]}"
        )

    def build(folder: Path) -> None:
        _fetch("Go modules of gRPC", [tool, "mod", "download"], folder, environ)
        _run([tool, "build", "-o", "caller", "."], folder, environ)

    return (str(_built("go", sources, str(installed), build) / "caller"),)


def node() -> tuple[str, ...]:
    tool, npm = str(need("node")), str(need("npm"))
    install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--fetch-retries=0"]

    def build(folder: Path) -> None:
        _fetch("npm packages of gRPC", [npm, *install], folder, dict(os.environ))

    return (tool, str(_built("node", HERE / "node", _output([tool, "--version"]), build) / "caller.js"))


def java() -> tuple[str, ...]:
    tool, javac, maven = str(need("java")), str(need("javac")), str(need("maven"))
    copy = ["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"]

    def build(folder: Path) -> None:
        _fetch("Maven artifacts of gRPC", [maven, *copy], folder, dict(os.environ))
        _run([javac, "-cp", "lib/*", "Caller.java", "XdsTlsFiles.java"], folder, dict(os.environ))

    folder = _built("java", HERE / "java", _output([javac, "-version"]), build)
    return (tool, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}:{folder}/lib/*", "Caller")


CALLERS: Final[dict[str, Callable[[], tuple[str, ...]]]] = {"python": python, "go": go, "node": node, "java": java}


def _built(name: str, sources: Path, version: str, build: Callable[[Path], None]) -> Path:
    """Returns the folder with the program, which is built from a copy of its sources unless it exists."""
    digest = hashlib.sha256(version.encode())
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(file.name.encode() + file.read_bytes())
    folder = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Other processes that need it wait until it is built.
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
                copy = Path(temporary) / "copy"
                shutil.copytree(sources, copy)
                build(copy)
                copy.rename(folder)
    return folder


def _fetch(packages: str, command: Sequence[str], folder: Path, environ: dict[str, str]) -> None:
    """Downloads packages; skips the test if they are not available."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the {packages} were not downloaded within {DOWNLOAD_TIMEOUT:g} s")
    if done.returncode != 0:
        pytest.skip(f"the {packages} are not available: {(done.stderr or done.stdout).strip()[-300:]}")


def _run(command: Sequence[str], folder: Path, environ: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=BUILD_TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr


def _output(command: Sequence[str], environ: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout


def _number(pattern: str, text: str) -> tuple[int, int]:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, text
    return int(found[1]), int(found[2])
