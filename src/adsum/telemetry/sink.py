"""Where log lines go: a thread writes them, so that a full pipe or a slow disk never holds up the registry."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
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
        self._pieces: deque[tuple[int, bytes | Callable[[], bytes]]] = deque()
        self._taken_in = self._written = self._lost = 0
        """Lines; the first and the last are counted by those who put them, the other by the thread."""
        self._some = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="adsum-log", daemon=True)
        self._thread.start()

    def put(self, piece: bytes | Callable[[], bytes], lines: int = 1) -> None:
        """Have so many lines written, their ends included. A function is called in the thread, and must not raise."""
        if self._taken_in - self._written >= MAX_WAITING:
            self._lost += lines
            return
        self._taken_in += lines
        self._pieces.append((lines, piece))
        if not self._some.is_set():
            self._some.set()

    def close(self, wait: float = LAST_WORDS) -> None:
        """Write what is left; return when that is done, at latest after `wait` seconds. Idempotent."""
        self._closed = True
        self._some.set()
        self._thread.join(wait)

    def _run(self) -> None:
        while not self._closed or self._pieces:
            self._some.wait()
            if not self._closed:
                time.sleep(GATHER)
            self._some.clear()
            self._write(self._taken())

    def _taken(self) -> bytes:
        taken = [self._pieces.popleft() for _ in range(len(self._pieces))]
        self._written += sum(lines for lines, _ in taken)
        texts = [piece if isinstance(piece, bytes) else piece() for _, piece in taken]
        lost, self._lost = self._lost, 0
        if lost:
            texts.append(b"%d log lines were lost: nobody reads them fast enough\n" % lost)
        return b"".join(texts)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # Whoever read our log is gone; the registry goes on.
            while text:
                text = text[os.write(self._fd, text) :]
