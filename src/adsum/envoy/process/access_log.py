"""Copies the access logs of a gateway's Envoys to our standard output.

Envoy buffers its output without a limit while it is not read. This module reads it at once, and drops lines when the
reader of our own standard output is slow, hangs or is gone.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from adsum.telemetry.sink import Sink

MAX_LINE_BYTES: Final = 1024 * 1024
"""Bytes of a line. A longer line is written in pieces, and a line of another Envoy may come between them."""
LOSS_REPORT_INTERVAL: Final = 60.0
"""Seconds between two log lines that report how many access-log lines were lost."""

_log = logging.getLogger("adsum.envoy")


class AccessLog:
    """Writes the lines of several Envoys. Writing never blocks: lines are dropped when the buffer (`Sink`) is full."""

    def __init__(self, fd: int | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """`fd`: the file descriptor to write to; None is standard output, if there is one."""
        self._sink = Sink(_standard_output() if fd is None else fd, report_lost=False)
        self._now = now
        self._reported_at = -math.inf
        self._reported_lines = 0
        self.lost_lines = 0
        """The number of lines that were dropped."""

    def write(self, lines: bytes) -> None:
        """Writes whole lines. Lost lines are reported in the log, at most once per `LOSS_REPORT_INTERVAL`."""
        line_count = lines.count(b"\n")
        if self._sink.put(lines, line_count):
            return
        self.lost_lines += line_count
        if self._now() - self._reported_at >= LOSS_REPORT_INTERVAL:
            self._report_loss()

    def close(self) -> None:
        """Writes what is buffered, as far as that takes little time. Idempotent."""
        self._sink.close()
        if self.lost_lines > self._reported_lines:
            self._report_loss()

    def _report_loss(self) -> None:
        self._reported_at, self._reported_lines = self._now(), self.lost_lines
        _log.warning("standard output is read too slowly: %d access-log lines were dropped", self.lost_lines)


class LineSplitter:
    """Splits the output of one Envoy into whole lines, so that the lines of several Envoys do not mix."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Writes every complete line to the access log and keeps the rest. An empty chunk ends the output."""
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        if not chunk or (not end and len(text) > MAX_LINE_BYTES):
            end = len(text)
        if end:
            self._log.write(text[:end])
        self._rest = text[end:]


def _standard_output() -> int:
    if sys.__stdout__ is None:  # It was closed before we started, and its number may belong to another file by now.
        return os.open(os.devnull, os.O_WRONLY)
    return sys.__stdout__.fileno()
