"""The access log of a gateway's Envoys: from their standard output to ours, whose reader may be slow, hang or be gone.

Envoy itself would keep every line that nobody reads.
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
"""Bytes of a line; what is longer is written in pieces, between which a line of another Envoy may come."""
LOSS_REPORT_INTERVAL: Final = 60.0
"""Seconds between two log lines that say how many were lost."""

_log = logging.getLogger("adsum.envoy")


class AccessLog:
    """Takes lines of several Envoys; it never waits, and loses those for which there is no room (`Sink`)."""

    def __init__(self, fd: int | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """`fd`: where it goes; None: standard output, if there is one."""
        self._sink = Sink(_standard_output() if fd is None else fd, report_lost=False)
        self._now = now
        self._said_at = -math.inf
        self._said = 0
        self.lost_lines = 0
        """Lines that were not written."""

    def write(self, data: bytes) -> None:
        """Have these written; the log says at times how many were not."""
        number = data.count(b"\n")
        if self._sink.put(data, number):
            return
        self.lost_lines += number
        if self._now() - self._said_at >= LOSS_REPORT_INTERVAL:
            self._say()

    def close(self) -> None:
        """Write what is left, as far as that takes no long time; idempotent."""
        self._sink.close()
        if self.lost_lines > self._said:
            self._say()

    def _say(self) -> None:
        self._said_at, self._said = self._now(), self.lost_lines
        _log.warning("nobody reads standard output fast enough: %d lines of the access log are lost", self.lost_lines)


class LineSplitter:
    """Cuts what one Envoy writes into whole lines, so that those of several don't mix."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Pass on every line that is complete; the rest waits. An empty chunk is the end."""
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        if not chunk or (not end and len(text) > MAX_LINE_BYTES):
            end = len(text)
        if end:
            self._log.write(text[:end])
        self._rest = text[end:]


def _standard_output() -> int:
    if sys.__stdout__ is None:  # It was closed before we began; something else may have its number by now.
        return os.open(os.devnull, os.O_WRONLY)
    return sys.__stdout__.fileno()
