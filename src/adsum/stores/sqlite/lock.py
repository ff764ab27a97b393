"""The lock of a database: only one process may use the file.

The lock is a file beside the database, `PATH.lock`. The system unlocks it when its holder ends, however it ends. The
file stays and holds the id of the last holder and the last known progress of the database. A backup does not contain
it, so a database that was restored from a copy is recognised by comparing the two.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.core.errors import StoreOpenFailed

LOCK_FILE_BYTES: Final = 256
"""Bytes of the lock file that are read and written. Its content is always shorter."""


@dataclass(frozen=True, slots=True)
class DatabaseProgress:
    """The last known epoch and revision of a database.

    `copies` and `highest` describe the main file alone, without the write-ahead log, to recognise another file in its
    place. Whenever the log is copied into the main file, the file gets the random id of that copy. So it has one of the
    ids in `copies`: that of the last copy, or that of one that is under way or was held up by a reader of the file. It
    has no later revision than `highest`. Files of schemas before 6 have no such id; their revision is at least
    `lowest`.
    """

    epoch: str
    revision: int
    lowest: int
    highest: int
    copies: tuple[int, ...] = ()

    def encode(self) -> str:
        return " ".join(map(str, (self.epoch, self.revision, self.lowest, self.highest, *self.copies)))

    @staticmethod
    def parse(text: str) -> DatabaseProgress | None:
        """Returns the progress that `encode` wrote; None for any other text."""
        epoch, *numbers = text.split(" ")
        if not 3 <= len(numbers) <= 5 or not all(number.isascii() and number.isdigit() for number in numbers):
            return None
        revision, lowest, highest, *copies = map(int, numbers)
        return DatabaseProgress(epoch, revision, lowest, highest, tuple(copies))


class FileLock:
    """The lock of a database. `progress` is what its last holder saved; None if there is none that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self.progress: DatabaseProgress | None = None
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Locks the file and reads its progress. Raises `StoreOpenFailed` if another process has it, and `OSError`."""
        descriptor = self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lines = os.pread(descriptor, LOCK_FILE_BYTES, 0).decode("ascii", "replace").splitlines()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (lines[0].strip() if lines else "") or "unknown"
            raise StoreOpenFailed(
                f"another registry uses it (process {holder}): stop that registry, or name another file"
            ) from None
        self.progress = DatabaseProgress.parse(lines[1]) if len(lines) > 1 else None
        self._write()

    def save(self, progress: DatabaseProgress, *, durable: bool = False) -> None:
        """Writes the progress of the database into the lock file. `durable`: also syncs it to disk."""
        self.progress = progress
        self._write()
        if durable and self._descriptor is not None:
            os.fsync(self._descriptor)

    @property
    def in_place(self) -> bool:
        """True while the locked file is at its path. Otherwise another process could lock a new file there."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Unlocks the file; idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self) -> None:
        if self._descriptor is None:
            return
        text = f"{os.getpid()}\n{self.progress.encode() if self.progress is not None else ''}\n"
        os.pwrite(self._descriptor, text.ljust(LOCK_FILE_BYTES).encode(), 0)
