"""The folder in which a gateway keeps the files of its Envoys while it runs. Folders of killed gateways are cleaned up.

Each folder is locked as long as its gateway lives. The system releases the lock however the process ends, so a folder
whose lock can be taken belongs to no running gateway.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.envoy.restart import hot_restart

FOLDER_PREFIX: Final = "adsum-gateway-"
MAX_PARENT_LENGTH: Final = 60
"""Characters. The path of a Unix socket has at most 107, and our folder's name with a file name takes up to 45 of
them."""
MAX_CLEARED_FOLDERS: Final = 100
"""Folders that are cleaned up at one start; the next start continues."""

_LOCK: Final = "lock"


class RuntimeFolder:
    """A folder with a unique name that only this user can read. `close` removes it."""

    def __init__(self) -> None:
        default = tempfile.gettempdir()
        parent = Path(default if len(default) <= MAX_PARENT_LENGTH else "/tmp")  # noqa: S108
        for folder in _gateway_folders(parent):
            _clear(folder)
        self.path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
        # The lock file has another name until it is locked: a lock that can be taken marks a dead gateway.
        self._lock = os.open(self.path / f"new-{_LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / f"new-{_LOCK}").rename(self.path / _LOCK)

    def close(self) -> None:
        """Removes the folder. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _gateway_folders(parent: Path) -> list[Path]:
    """Returns the folders of this user's gateways, running or not."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(parent):
            with suppress(OSError):
                is_own_folder = (
                    entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid()
                )
                if is_own_folder and entry.name.startswith(FOLDER_PREFIX):
                    found.append(Path(entry.path))
    return found[:MAX_CLEARED_FOLDERS]


def _clear(folder: Path) -> None:
    """Removes the folder and its shared memory, unless its gateway runs or it has no lock file."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hot_restart.clear_shared_memory(folder)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(lock)
