"""Measures for how long the event loop of a node is blocked: a client that sends small requests meanwhile."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType
from typing import Self

from benchmarks.harness.load import quantile

REQUEST_TIMEOUT = 60.0
"""Seconds that one request may take."""


class AnswerTimer:
    """Sends requests in a thread, a pause after each answer, while it is entered."""

    def __init__(self, port: int, pause: float) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT)
        self._pause = pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._seconds: list[float] = []

    @property
    def longest(self) -> float:
        """The seconds of the slowest answer."""
        return max(self._seconds, default=0.0)

    @property
    def p99(self) -> float:
        return quantile(sorted(self._seconds), 0.99)

    def _send(self) -> None:
        while not self._ended.wait(self._pause):
            began = time.monotonic()
            self._connection.request("GET", "/healthz")
            self._connection.getresponse().read()
            self._seconds.append(time.monotonic() - began)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()
