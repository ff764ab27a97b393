"""Where log lines go: a thread writes them, so that a full pipe or a slow disk never holds up the registry."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import Final

MAX_WAITING: Final = 50_000
"""How many lines wait to be written; past it further ones are lost, and a line says how many."""
GATHER: Final = 0.02
"""Seconds that the first waiting line waits for others, to be written with them."""
LAST_WORDS: Final = 1.0
"""Seconds that `close` waits by default for what is left to be written."""


class Sink:
    """Writes lines to a file descriptor; `put` never waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._some = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="adsum-log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Have one line written, its end included."""
        if len(self._lines) >= MAX_WAITING:
            self._lost += 1
            return
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()

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
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        lost, self._lost = self._lost, 0
        if lost:
            lines.append(b"%d log lines were lost: nobody reads them fast enough\n" % lost)
        return b"".join(lines)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # Whoever read our log is gone; the registry goes on.
            while text:
                text = text[os.write(self._fd, text) :]
