"""Programs with the client libraries of earlier releases, which are in `clients/`, use today's registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import adsum
from adsum.config.serve import ServeConfig
from tests.compatibility.archive import CLIENTS, HERE
from tests.support.registry_daemon import RunningDaemon

RELEASES = sorted([*CLIENTS.glob("*.whl"), *CLIENTS.glob("*.tar.gz")])


def _build_today(folder: Path) -> Path:
    """Returns the library of this tree as a wheel."""
    return Path(shutil.make_archive(str(folder / "today"), "zip", Path(adsum.__file__).parents[1], "adsum"))


def _unpacked(release: Path, folder: Path) -> Path:
    """Unpacks a release. Returns the folder for PYTHONPATH."""
    if release.name.endswith(".tar.gz"):
        with tarfile.open(release) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.glob("*/src")
        return source
    with zipfile.ZipFile(release) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize(
    "release",
    [_build_today, *(lambda _, release=release: release for release in RELEASES)],
    ids=["today", *(release.name for release in RELEASES)],
)
def test_programs_of_earlier_releases_are_served(release: Callable[[Path], Path], tmp_path: Path) -> None:
    library = _unpacked(release(tmp_path), tmp_path / "library")
    daemon = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:"))
    try:
        result = subprocess.run(
            [sys.executable, str(HERE / "exchange.py"), daemon.url],
            env={**os.environ, "PYTHONPATH": str(library)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        daemon.stop()
    assert result.stdout.splitlines() == [
        str(library),
        "picked o1 http://127.0.0.1:8000",
        "drained True",
        "gone",
    ], result.stderr
