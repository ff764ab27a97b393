"""A writer of log lines that never blocks: a thread writes them, so that a full pipe or a slow disk delays nothing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MAX_QUEUED_LINES: Final = 50_000
"""The most lines that wait to be written; further ones are dropped, and a log line reports their number."""
MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
"""The most bytes that wait or are being written; further lines are dropped likewise."""
BATCH_DELAY: Final = 0.02
"""Seconds that the first line waits for others, to be written together with them."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that `close` waits by default for the remaining lines to be written."""


class Sink:
    """Writes lines to a file descriptor; `put` never waits."""

    def __init__(self, fd: int, *, report_lost: bool = True) -> None:
        """`report_lost`: whether a line among the others reports how many were dropped."""
        self._fd = fd
        self._report_lost = report_lost
        self._lock = threading.RLock()  # A signal handler may log while its own thread logs.
        self._queued_lines = 0
        """Lines that the thread has not taken yet."""
        self._queued_bytes = 0
        """Bytes that wait or are being written."""
        self._pieces: deque[tuple[int, bytes | Callable[[], bytes]]] = deque()
        self._lost = 0
        self._wakeup = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="adsum-log", daemon=True)
        self._thread.start()

    def put(self, piece: bytes | Callable[[], bytes], lines: int = 1) -> bool:
        """Queue a piece of `lines` complete lines for writing; returns False if the queue is full and they are dropped.

        A function is called in the writing thread and must not raise; its result counts for the limit on bytes only
        from then on.
        """
        size = len(piece) if isinstance(piece, bytes) else 0
        with self._lock:
            if self._queued_lines >= MAX_QUEUED_LINES or self._queued_bytes + size > MAX_QUEUED_BYTES:
                self._lost += lines
                return False
            self._queued_lines += lines
            self._queued_bytes += size
            self._pieces.append((lines, piece))
        if not self._wakeup.is_set():
            self._wakeup.set()
        return True

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write the remaining lines; returns when that is done, at the latest after `timeout` seconds. Idempotent."""
        self._closed = True
        self._wakeup.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed or self._pieces:
            self._wakeup.wait()
            if not self._closed:
                time.sleep(BATCH_DELAY)
            self._wakeup.clear()
            self._write(self._take_pieces())

    def _take_pieces(self) -> bytes:
        with self._lock:
            pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
            self._queued_lines -= sum(lines for lines, _ in pieces)
            lost, self._lost = self._lost, 0
        texts = [piece if isinstance(piece, bytes) else piece() for _, piece in pieces]
        if lost and self._report_lost:
            texts.append(b"%d log lines were lost: nobody reads them fast enough\n" % lost)
        text = b"".join(texts)
        with self._lock:
            self._queued_bytes += len(text) - sum(len(piece) for _, piece in pieces if isinstance(piece, bytes))
        return text

    def _write(self, text: bytes) -> None:
        remaining = memoryview(text)
        with contextlib.suppress(OSError):  # The reader of the log is gone; the process goes on.
            while remaining:
                remaining = remaining[os.write(self._fd, remaining) :]
        with self._lock:
            self._queued_bytes -= len(text)
