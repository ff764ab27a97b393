"""Envoy's hot restart: each new Envoy takes over the listening sockets of the one before, without a gap.

The Envoys find each other by a number, the base id, in the abstract socket namespace and in a small file of shared
memory. When the last Envoy of a series crashes, the next one starts a new series with another base id.
See docs/envoy.md.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

IS_SUPPORTED: Final = sys.platform == "linux"
"""Envoy supports hot restart on Linux only."""
SHARED_MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
STARTING_FLAGS_SIZE: Final = 8
"""Bytes at the end of the shared memory that are not zero while a new Envoy starts."""

_BASE_ID: Final = "base-id-"


class HotRestart:
    """The hot restarts of one series of Envoys. `folder` is private to the gateway; `number` is unique in it."""

    def __init__(self, folder: Path, number: int) -> None:
        self._base_id_file = folder / f"{_BASE_ID}{number}"
        self._epoch = 0
        self._served = False

    def arguments(self) -> list[str]:
        """Returns the arguments that make the next Envoy take over from the one before."""
        if not IS_SUPPORTED:
            return ["--disable-hot-restart"]
        if not self._served:
            return ["--use-dynamic-base-id", "--base-id-path", str(self._base_id_file)]
        return ["--base-id", self._base_id_file.read_text().strip(), "--restart-epoch", str(self._epoch)]

    def mark_succeeded(self) -> None:
        """Records that the Envoy with the latest arguments serves. The one before drains."""
        self._served = True
        self._epoch += 1

    @property
    def is_blocked(self) -> bool:
        """True if a failed takeover has left its flags in the shared memory.

        Envoy then takes the failed Envoy for one that is still starting, and refuses every further takeover.
        """
        try:
            with self._memory().open("rb") as memory:
                memory.seek(-STARTING_FLAGS_SIZE, os.SEEK_END)
                return any(memory.read())
        except (OSError, ValueError):
            return False

    def unblock(self) -> None:
        """Clears the flags of a failed takeover in the shared memory. The failed Envoy must have exited."""
        with suppress(OSError, ValueError), self._memory().open("r+b") as memory:
            memory.seek(-STARTING_FLAGS_SIZE, os.SEEK_END)
            memory.write(bytes(STARTING_FLAGS_SIZE))

    def remove_shared_memory(self) -> None:
        """Removes the shared memory, which Envoy leaves behind. Idempotent."""
        _remove(self._base_id_file)

    def _memory(self) -> Path:
        return _memory(self._base_id_file)


def clear_shared_memory(folder: Path) -> None:
    """Removes the shared memory of every series in that folder. Its Envoys must have exited."""
    for base_id_file in folder.glob(f"{_BASE_ID}*"):
        _remove(base_id_file)


def _remove(base_id_file: Path) -> None:
    with suppress(OSError, ValueError):
        _memory(base_id_file).unlink()
        base_id_file.unlink()  # Another Envoy may use the base id now.


def _memory(base_id_file: Path) -> Path:
    return SHARED_MEMORY_FOLDER / f"envoy_shared_memory_{int(base_id_file.read_text()) * 10}"
