"""The worker processes that serve one listening socket. One of them is the leader and registers the instance.

To the registry they are one process, so they share a holder: when another worker leads, nothing changes in the catalog.
They coordinate by locks on three bytes of a file. The system releases these locks when a process ends, however it ends,
and children do not inherit them (POSIX record locks).
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

_LEADER, _SERVING, _UNDRAINED = range(3)
"""The locked bytes: held by the leader; shared by every worker that serves; held until the leader has drained the
instance."""
MAX_RECORD_BYTES: Final = 512
"""Bytes of the file that are read. It holds the holder and the name of its socket."""
MAX_JOIN_ATTEMPTS, JOIN_RETRY_INTERVAL = 100, 0.001
"""The number of attempts to be seen as serving, and the seconds in between. Another worker's check blocks an attempt
for microseconds. After the last one, others may conclude that this worker does not serve."""
_NETWORK: Final = Path("/proc/self/ns/net")

_log = logging.getLogger(__name__)
_open_files: set[tuple[int, Path]] = set()
"""Files that this process has open. Opening and closing one a second time would release all its locks."""


class WorkerGroup:
    """The workers of `service` on `port`, seen from one of them. Without a folder for the file, each is alone."""

    def __init__(self, service: str, port: int, folder: Path | None = None) -> None:
        """Raises `AdsumError` if this process has registered the service on that port already."""
        self._fd: int | None = None
        self._held: set[int] = set()
        self._socket = ""
        self._joined_others = False
        try:
            self._path = _folder(folder) / f"{_network()}-{service}-{port}.lock"
            self._claim = (os.getpid(), self._path)
            if self._claim in _open_files:
                raise AdsumError(f"{service} on port {port} is registered by this process already")
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _open_files.add(self._claim)
        except OSError as error:
            _log.warning("%s: every worker of this server registers an instance of its own: %s", service, error)

    def join(self, socket_name: str = "") -> None:
        """Marks this worker as serving. `socket_name` identifies its listening socket; "" is unknown."""
        self._socket = socket_name
        self._joined_others = self.others_serve()
        for _ in range(MAX_JOIN_ATTEMPTS):
            if self._lock(_SERVING, fcntl.LOCK_SH):
                return
            time.sleep(JOIN_RETRY_INTERVAL)
        _log.warning("%s: the other workers of this server can't see that this one serves", self._path.stem)

    def leave(self) -> None:
        """Marks this worker as no longer serving."""
        self._unlock(_SERVING)

    def try_lead(self) -> bool:
        """Returns whether this worker leads now. It then leads until `close` or its end."""
        return self._lock(_LEADER, fcntl.LOCK_EX) and self._lock(_UNDRAINED, fcntl.LOCK_EX)

    def holder(self) -> str:
        """Returns the holder of the registration; only the leader may call it.

        It is the previous leader's holder if others served when this worker joined or if the socket is the same, else a
        new one. Returns "" if this process is alone.
        """
        if self._fd is None:
            return ""
        with suppress(OSError, UnicodeDecodeError):
            holder, _, socket = os.pread(self._fd, MAX_RECORD_BYTES, 0).decode().strip().partition(" ")
            if holder and (self._joined_others or (self._socket and socket == self._socket)):
                return holder
        holder = secrets.token_hex(8)
        with suppress(OSError):  # Then the next leader uses a new holder.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{holder} {self._socket}".encode(), 0)
        return holder

    def others_serve(self) -> bool:
        """Returns whether any other worker serves. Call it before `join` or after `leave`."""
        if not self._lock(_SERVING, fcntl.LOCK_EX):
            return True
        self._unlock(_SERVING)
        return False

    def mark_drained(self) -> None:
        """Records that the instance is drained; only the leader may call it."""
        self._unlock(_UNDRAINED)

    def is_drained(self) -> bool:
        """Returns whether the instance is drained, or there is no leader left that could drain it."""
        if not self._lock(_UNDRAINED, fcntl.LOCK_SH):
            return False
        self._unlock(_UNDRAINED)
        return True

    def close(self) -> None:
        """Gives up the lead and leaves. Idempotent."""
        fd, self._fd = self._fd, None
        self._held.clear()
        if fd is not None:
            _open_files.discard(self._claim)
            os.close(fd)

    def _lock(self, byte: int, operation: int) -> bool:
        if self._fd is None or byte in self._held:
            return True
        try:
            fcntl.lockf(self._fd, operation | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        if operation == fcntl.LOCK_EX:
            self._held.add(byte)
        return True

    def _unlock(self, byte: int) -> None:
        self._held.discard(byte)
        if self._fd is not None:
            with suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


def _folder(given: Path | None) -> Path:
    """Returns a folder that belongs to this user. Raises `OSError`."""
    folder = given or Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"adsum-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _network() -> str:
    """Returns a name of the network namespace: containers may share a folder, but not their ports."""
    try:
        return str(_NETWORK.readlink()).strip("net:[]")
    except OSError:
        return "host"
