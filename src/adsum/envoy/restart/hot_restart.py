"""Envoys that follow one another without a gap: each takes the listening sockets over from the one before.

Envoy calls it hot restart: they find one another by a number, the base id, in the abstract socket name space and in a
small file of shared memory. A lineage ends when its last Envoy crashes; the next one begins anew, with another number.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

IS_SUPPORTED: Final = sys.platform == "linux"
"""Envoy can do it on Linux alone."""
SHARED_MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where the system keeps it
STARTING_FLAGS_SIZE: Final = 8
"""Bytes at the end of the file: not zero while one of them is coming up."""

_BASE_ID: Final = "base-id-"


class HotRestart:
    """Who follows whom. `folder` is ours alone."""

    def __init__(self, folder: Path, number: int) -> None:
        self._base_id_file = folder / f"{_BASE_ID}{number}"
        self._epoch = 0
        self._served = False

    def arguments(self) -> list[str]:
        """What the next Envoy is told, so that it finds the one before."""
        if not IS_SUPPORTED:
            return ["--disable-hot-restart"]
        if not self._served:
            return ["--use-dynamic-base-id", "--base-id-path", str(self._base_id_file)]
        return ["--base-id", self._base_id_file.read_text().strip(), "--restart-epoch", str(self._epoch)]

    def mark_succeeded(self) -> None:
        """The one that was told the latest arguments serves; the one before is leaving."""
        self._served = True
        self._epoch += 1

    def mark_failed(self) -> None:
        """It came to nothing: have the one before accept another. Envoy would take it for still coming up for ever."""
        with suppress(OSError, ValueError), self._memory().open("r+b") as memory:
            memory.seek(-STARTING_FLAGS_SIZE, 2)
            memory.write(bytes(STARTING_FLAGS_SIZE))

    def remove_shared_memory(self) -> None:
        """Leave nothing of it in memory; Envoy does not clear up. Idempotent."""
        _end(self._base_id_file)

    def _memory(self) -> Path:
        return _memory(self._base_id_file)


def clear_shared_memory(folder: Path) -> None:
    """Leave nothing in memory of the lineages of that folder, whose Envoys have ended."""
    for each in folder.glob(f"{_BASE_ID}*"):
        _end(each)


def _end(base_id_file: Path) -> None:
    with suppress(OSError, ValueError):
        _memory(base_id_file).unlink()
        base_id_file.unlink()  # The number is free for any other Envoy.


def _memory(base_id_file: Path) -> Path:
    return SHARED_MEMORY_FOLDER / f"envoy_shared_memory_{int(base_id_file.read_text()) * 10}"
