"""The processes that serve one listening socket: one of them has the turn and registers, the others wait for it.

To the registry they are one process, so they share a holder: when the turn goes on, nothing changes in the catalog.
They meet at three bytes of a file, by locks that the system lets go of when a process ends, however it ends, and that
are not inherited by its children (POSIX record locks).
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.core.errors import AdsumError

_TURN, _SERVING, _SHOWN = range(3)
"""The bytes: who has the turn; everybody who serves; held until what the turn's holder shows is taken back."""
MAX_RECORD_BYTES: Final = 512
"""Bytes of the file that are read; it holds the holder and the name of its socket."""
MAX_JOIN_ATTEMPTS, JOIN_RETRY_INTERVAL = 100, 0.001
"""How often a worker tries to be seen as serving, and seconds between: a look of another one is in its way for
microseconds. Past it, others may take it that nobody serves."""
_NETWORK: Final = Path("/proc/self/ns/net")

_log = logging.getLogger(__name__)
_ours: set[tuple[int, Path]] = set()
"""Files that this process has open: it would lose every lock on one by opening and closing it a second time."""


class WorkerGroup:
    """The workers of `service` on `port`, of whom this process is one. Without a folder for the file it is alone."""

    def __init__(self, service: str, port: int, folder: Path | None = None) -> None:
        """Raises `AdsumError` if this process has registered the service on that port already."""
        self._fd: int | None = None
        self._held: set[int] = set()
        self._socket = ""
        self._joined_others = False
        try:
            self._path = _folder(folder) / f"{_network()}-{service}-{port}.lock"
            self._claim = (os.getpid(), self._path)
            if self._claim in _ours:
                raise AdsumError(f"{service} on port {port} is registered by this process already")
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _ours.add(self._claim)
        except OSError as error:
            _log.warning("%s: every worker of this server registers for itself: %s", service, error)

    def join(self, socket_name: str = "") -> None:
        """From now on we serve. `socket` names the one that we listen on, where the system tells; "": it does not."""
        self._socket = socket_name
        self._joined_others = self.others_serve()
        for _ in range(MAX_JOIN_ATTEMPTS):
            if self._lock(_SERVING, fcntl.LOCK_SH):
                return
            time.sleep(JOIN_RETRY_INTERVAL)
        _log.warning("%s: the other workers of this server don't see that this one serves", self._path.stem)

    def leave(self) -> None:
        """We won't serve much longer."""
        self._unlock(_SERVING)

    def try_lead(self) -> bool:
        """Whether it is our turn now; then it stays ours until `close` or our end."""
        return self._lock(_TURN, fcntl.LOCK_EX) and self._lock(_SHOWN, fcntl.LOCK_EX)

    def holder(self) -> str:
        """The holder of what is registered, having the turn: the one of the turn before if others served when we
        joined, or if the socket is the same; else a new one. "" if this process is alone.
        """
        if self._fd is None:
            return ""
        with suppress(OSError, UnicodeDecodeError):
            holder, _, socket = os.pread(self._fd, MAX_RECORD_BYTES, 0).decode().strip().partition(" ")
            if holder and (self._joined_others or (self._socket and socket == self._socket)):
                return holder
        holder = secrets.token_hex(8)
        with suppress(OSError):  # Then the next turn begins with a new holder.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{holder} {self._socket}".encode(), 0)
        return holder

    def others_serve(self) -> bool:
        """Whether any other serves, of those who have not left. Ask before we join or after we have left."""
        if not self._lock(_SERVING, fcntl.LOCK_EX):
            return True
        self._unlock(_SERVING)
        return False

    def mark_drained(self) -> None:
        """Say, having the turn, that callers have been told to go elsewhere."""
        self._unlock(_SHOWN)

    def is_drained(self) -> bool:
        """Whether callers have been told to go elsewhere, or nobody has the turn who could have told otherwise."""
        if not self._lock(_SHOWN, fcntl.LOCK_SH):
            return False
        self._unlock(_SHOWN)
        return True

    def close(self) -> None:
        """Give the turn up, and leave. Idempotent."""
        fd, self._fd = self._fd, None
        self._held.clear()
        if fd is not None:
            _ours.discard(self._claim)
            os.close(fd)

    def _lock(self, byte: int, how: int) -> bool:
        if self._fd is None or byte in self._held:
            return True
        try:
            fcntl.lockf(self._fd, how | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        if how == fcntl.LOCK_EX:
            self._held.add(byte)
        return True

    def _unlock(self, byte: int) -> None:
        self._held.discard(byte)
        if self._fd is not None:
            with suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


def _folder(given: Path | None) -> Path:
    """A folder that is ours alone. Raises `OSError`."""
    folder = given or Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"adsum-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def _network() -> str:
    """Which network's ports are meant: containers may share a folder, but not their ports."""
    try:
        return str(_NETWORK.readlink()).strip("net:[]")
    except OSError:
        return "host"
