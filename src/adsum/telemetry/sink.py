"""Where log lines go: a thread writes them, so that a full pipe or a slow disk never holds up the registry."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import Final

MAX_WAITING: Final = 50_000
"""How many texts wait to be written; past it further ones are lost, and a line says how many lines that were."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes that wait to be written or are being written; past it, the same."""
GATHER: Final = 0.02
"""Seconds that the first waiting line waits for others, to be written with them."""
LAST_WORDS: Final = 1.0
"""Seconds that `close` waits by default for what is left to be written."""


class Sink:
    """Writes lines to a file descriptor; `put` never waits."""

    def __init__(self, fd: int, *, says_lost: bool = True) -> None:
        """`says_lost`: whether a line among the others says how many were lost."""
        self._fd = fd
        self._says_lost = says_lost
        self._lock = threading.RLock()  # A signal's handler may log while its thread does.
        self._unwritten = 0
        """Bytes of what waits and of what is being written."""
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._some = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="adsum-log", daemon=True)
        self._thread.start()

    def put(self, lines: bytes) -> bool:
        """Have one line or several written, their ends included; whether there is room for them."""
        with self._lock:
            if len(self._lines) >= MAX_WAITING or self._unwritten + len(lines) > MAX_BYTES:
                self._lost += lines.count(b"\n")
                return False
            self._lines.append(lines)
            self._unwritten += len(lines)
        if not self._some.is_set():
            self._some.set()
        return True

    def close(self, wait: float = LAST_WORDS) -> None:
        """Write what is left; return when that is done, at latest after `wait` seconds. Idempotent."""
        self._closed = True
        self._some.set()
        self._thread.join(wait)

    def _run(self) -> None:
        while not self._closed or self._lines:
            self._some.wait()
            if not self._closed:
                time.sleep(GATHER)
            self._some.clear()
            self._write(self._taken())

    def _taken(self) -> bytes:
        with self._lock:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            lost, self._lost = self._lost, 0
            if lost and self._says_lost:
                lines.append(b"%d log lines were lost: nobody reads them fast enough\n" % lost)
                self._unwritten += len(lines[-1])
        return b"".join(lines)

    def _write(self, text: bytes) -> None:
        left = memoryview(text)
        with contextlib.suppress(OSError):  # Whoever read our log is gone; the registry goes on.
            while left:
                left = left[os.write(self._fd, left) :]
        with self._lock:
            self._unwritten -= len(text)
