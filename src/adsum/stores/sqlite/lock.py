"""One process a file, and what that process last knew of the file.

The lock is a file beside the database, `PATH.lock`, which the system unlocks when its holder ends, however it ends. It
stays there, and says who held it last and how far the database had come. No backup brings that back, so a restored
database is recognised by it.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.core.errors import StoreOpenFailed

LOCK_FILE_BYTES: Final = 256
"""Bytes of the lock file that are read; what it says is shorter."""


@dataclass(frozen=True, slots=True)
class DatabaseProgress:
    """How far a database had come.

    Its main file, without the write-ahead log, stood at a revision from `lowest` to `highest`; the two differ while the
    log is being copied into it, and after a copy that a reader held up.
    """

    epoch: str
    revision: int
    lowest: int
    highest: int

    def encode(self) -> str:
        return f"{self.epoch} {self.revision} {self.lowest} {self.highest}"

    @staticmethod
    def parse(text: str) -> DatabaseProgress | None:
        """The mark that `write` wrote; None for any other text."""
        epoch, *numbers = text.split(" ")
        if len(numbers) != 3 or not all(each.isascii() and each.isdigit() for each in numbers):
            return None
        return DatabaseProgress(epoch, *map(int, numbers))


class FileLock:
    """The lock of a database. `mark` is what its last holder knew, None if that is not known."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self.progress: DatabaseProgress | None = None
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises `StoreOpenFailed` if another process has it, and `OSError`."""
        descriptor = self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        said = os.pread(descriptor, LOCK_FILE_BYTES, 0).decode("ascii", "replace").splitlines()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (said[0].strip() if said else "") or "unknown"
            raise StoreOpenFailed(
                f"another registry has it (process {holder}): stop that one, or name another file"
            ) from None
        self.progress = DatabaseProgress.parse(said[1]) if len(said) > 1 else None
        self._write()

    def save(self, progress: DatabaseProgress, *, durable: bool = False) -> None:
        """Remember how far the database has come; `durable`: even if the machine loses its power."""
        self.progress = progress
        self._write()
        if durable and self._descriptor is not None:
            os.fsync(self._descriptor)

    @property
    def in_place(self) -> bool:
        """Whether the locked file is still at the lock's path: a process that finds another one there can lock that."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self) -> None:
        if self._descriptor is None:
            return
        text = f"{os.getpid()}\n{self.progress.encode() if self.progress is not None else ''}\n"
        os.pwrite(self._descriptor, text.ljust(LOCK_FILE_BYTES).encode(), 0)
