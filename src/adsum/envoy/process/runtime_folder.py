"""A gateway's own folder for what its Envoys share; those that gateways left behind when they were killed are cleared.

Each is locked as long as its gateway lives: the system lets go of the lock, whatever ends the process. So who gets the
lock of another one knows that it is nobody's.
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
"""Characters; the path of a socket has at most 107, and a folder of ours and a name in it take up to 45 of them."""
MAX_CLEARED_FOLDERS: Final = 100
"""Folders that are cleared at a start; what is left is cleared at the next one."""

_LOCK: Final = "lock"


class RuntimeFolder:
    """One with a name of its own that only this user can read; `close` removes it."""

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        where = Path(parent if len(parent) <= MAX_PARENT_LENGTH else "/tmp")  # noqa: S108
        for each in _left(where):
            _clear(each)
        self.path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=where))
        # Under another name until it is locked: one that can be locked is nobody's.
        self._lock = os.open(self.path / f"new-{_LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / f"new-{_LOCK}").rename(self.path / _LOCK)

    def close(self) -> None:
        """Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _left(where: Path) -> list[Path]:
    """Folders of this user's gateways, running or not."""
    found = []
    with suppress(OSError):
        for each in os.scandir(where):
            with suppress(OSError):
                own = each.is_dir(follow_symlinks=False) and each.stat(follow_symlinks=False).st_uid == os.getuid()
                if own and each.name.startswith(FOLDER_PREFIX):
                    found.append(Path(each.path))
    return found[:MAX_CLEARED_FOLDERS]


def _clear(folder: Path) -> None:
    """Unless somebody holds its lock, or it has none: then nothing is known of it."""
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
