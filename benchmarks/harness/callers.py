"""Our own load: callers over bare sockets, thin enough not to be what is measured. Runs wherever Python does."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Final, cast

import uvloop

from benchmarks.harness.load import LoadRunResult, quantile

ANSWER_TIMEOUT: Final = 30.0
"""Seconds after the end of a run in which answers may still come; then those that are missing count as failed."""
RUN_TIMEOUT: Final = 90.0
"""Seconds that a run of a given number of requests may take."""


class CallerRun:
    """What the callers of one run share."""

    def __init__(self, requests: Iterator[bytes], until: Callable[[int], bool]) -> None:
        """`requests` are what is to be sent, next by next; `until` is asked with the number sent so far."""
        self._requests = requests
        self._until = until
        self.sent = 0
        self.failed = 0
        self.bytes = 0
        self.latencies = array("d")
        self.is_over = False

    def next_request(self) -> bytes | None:
        """The next request; None when the run is over."""
        if self.is_over or self._until(self.sent):
            self.is_over = True
            return None
        self.sent += 1
        return next(self._requests)

    def record_answer(self, took: float, size: int) -> None:
        self.latencies.append(took)
        self.bytes += size


class LoadConnection(asyncio.Protocol):
    """One connection: asks, waits for the answer, asks again; `done` when the run is over."""

    def __init__(self, run: CallerRun) -> None:
        self.run = run
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_at = 0.0
        self.is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.finish(lost=self.is_waiting)

    def finish(self, lost: bool = False) -> None:
        self.is_waiting = False
        if lost:
            self.run.failed += 1
        if not self.done.done():
            self.done.set_result(None)

    def answered(self, ok: bool, size: int) -> None:
        """An answer is complete: note it, and ask again."""
        self.is_waiting = False
        if ok:
            self.run.record_answer(perf_counter() - self.sent_at, size)
        else:
            self.run.failed += 1
        self.send_next()

    def send_next(self) -> None:
        request = self.run.next_request()
        if request is None:
            self.finish()
            return
        self.is_waiting = True
        self.sent_at = perf_counter()
        self.write(request)

    def write(self, request: bytes) -> None:
        self.transport.write(request)


class Http1Connection(LoadConnection):
    """HTTP/1.1, kept alive. Requests are whole texts; answers must be 200 or 201 and state their length."""

    def __init__(self, run: CallerRun) -> None:
        super().__init__(run)
        self._head = b""
        self._left = 0
        self._size = 0
        self._ok = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send_next()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            self._ok = head[9:12] in (b"200", b"201")
            length = head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0]
            self._size = int(length)
            self._left = end + 4 + self._size - len(self._head)
            self._head = b""
        if not self._left:
            self.answered(self._ok, self._size)


async def _run(
    port: int, run: CallerRun, callers: int, kind: Callable[[CallerRun], LoadConnection], limit: float
) -> LoadRunResult:
    loop = asyncio.get_running_loop()
    began = perf_counter()
    pairs = [await loop.create_connection(lambda: kind(run), "127.0.0.1", port) for _ in range(callers)]
    _, late = await asyncio.wait([caller.done for _, caller in pairs], timeout=limit + ANSWER_TIMEOUT)
    took = perf_counter() - began
    for transport, _ in pairs:
        transport.abort()
    answers = sorted(run.latencies)
    return LoadRunResult(
        requests=len(answers),
        failed=run.failed + len(late),
        took=took,
        p50=quantile(answers, 0.5),
        p99=quantile(answers, 0.99),
        answer_bytes=run.bytes / max(1, len(answers)),
    )


def call_for_seconds(
    port: int, requests: Iterator[bytes], callers: int, kind: Callable[[CallerRun], LoadConnection], *, seconds: float
) -> LoadRunResult:
    """Let `callers` ask for so many seconds."""
    end = perf_counter() + seconds
    return uvloop.run(_run(port, CallerRun(requests, lambda _: perf_counter() >= end), callers, kind, seconds))


def call_count(
    port: int, requests: Iterator[bytes], callers: int, kind: Callable[[CallerRun], LoadConnection], *, count: int
) -> LoadRunResult:
    """Let `callers` ask so many times altogether."""
    return uvloop.run(_run(port, CallerRun(requests, lambda sent: sent >= count), callers, kind, RUN_TIMEOUT))
