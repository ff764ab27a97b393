"""A load generator in Python: callers over plain asyncio protocols, cheap enough not to be what is measured."""

from __future__ import annotations

import asyncio
import ssl
from array import array
from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter
from typing import Final, cast

import uvloop

from benchmarks.harness.load import LoadRunResult, quantile

ANSWER_TIMEOUT: Final = 30.0
"""Seconds after the end of a run in which answers may still arrive; then missing answers count as failed."""
RUN_TIMEOUT: Final = 90.0
"""Seconds that a run with a given number of requests may take."""


class CallerRun:
    """The shared state of one run: its requests and its results."""

    def __init__(self, requests: Iterator[bytes], until: Callable[[int], bool]) -> None:
        """`requests` are sent in order until `until` returns true for the number sent so far."""
        self._requests = requests
        self._until = until
        self.sent = 0
        self.failed = 0
        self.bytes = 0
        self.latencies = array("d")
        self.is_over = False

    def next_request(self) -> bytes | None:
        """Returns the next request; None when the run is over."""
        if self.is_over or self._until(self.sent):
            self.is_over = True
            return None
        self.sent += 1
        return next(self._requests)

    def record_answer(self, seconds: float, size: int) -> None:
        self.latencies.append(seconds)
        self.bytes += size


class LoadConnection(asyncio.Protocol):
    """One connection: it sends each request after the answer to the last one; `done` is set when the run is over."""

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
        """Records a complete answer, and sends the next request."""
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
    """HTTP/1.1 with keep-alive. Requests are encoded; answers must be 200 or 201, with a content length."""

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
    port: int,
    run: CallerRun,
    callers: int,
    kind: Callable[[CallerRun], LoadConnection],
    limit: float,
    context: ssl.SSLContext | None = None,
) -> LoadRunResult:
    loop = asyncio.get_running_loop()
    began = perf_counter()
    connections = [
        await loop.create_connection(lambda: kind(run), "127.0.0.1", port, ssl=context) for _ in range(callers)
    ]
    done = [caller.done for _, caller in connections]
    _, late = await asyncio.wait(done, timeout=limit + ANSWER_TIMEOUT)
    seconds = perf_counter() - began
    for transport, _ in connections:
        transport.abort()
    latencies = sorted(run.latencies)
    return LoadRunResult(
        requests=len(latencies),
        failed=run.failed + len(late),
        took=seconds,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        answer_bytes=run.bytes / max(1, len(latencies)),
    )


async def _connect_each(
    port: int, request: bytes, callers: int, count: int, context: ssl.SSLContext | None
) -> LoadRunResult:
    loop = asyncio.get_running_loop()
    run = CallerRun(repeat(request), lambda sent: sent >= count)
    latencies: list[float] = []

    async def call() -> None:
        while not run.is_over:
            one = CallerRun(repeat(request), lambda sent: sent >= 1)
            if run.next_request() is None:
                return
            began = perf_counter()
            transport, caller = await loop.create_connection(
                lambda one=one: Http1Connection(one),
                "127.0.0.1",
                port,
                ssl=context,
            )
            await caller.done
            transport.abort()
            latencies.append(perf_counter() - began)
            run.failed += one.failed
            run.bytes += one.bytes

    began = perf_counter()
    async with asyncio.timeout(RUN_TIMEOUT):
        await asyncio.gather(*(call() for _ in range(callers)))
    seconds = perf_counter() - began
    latencies.sort()
    return LoadRunResult(
        requests=len(latencies) - run.failed,
        failed=run.failed,
        took=seconds,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        answer_bytes=run.bytes / max(1, len(latencies)),
    )


def connect_each(
    port: int, request: bytes, callers: int, *, count: int, context: ssl.SSLContext | None = None
) -> LoadRunResult:
    """Sends `count` requests, each on a connection of its own. With a `context` over TLS."""
    return uvloop.run(_connect_each(port, request, callers, count, context))


def call_for_seconds(
    port: int,
    requests: Iterator[bytes],
    callers: int,
    kind: Callable[[CallerRun], LoadConnection],
    *,
    seconds: float,
    context: ssl.SSLContext | None = None,
) -> LoadRunResult:
    """Sends requests on `callers` connections for this many seconds. With a `context` over TLS."""
    end = perf_counter() + seconds
    run = CallerRun(requests, lambda _: perf_counter() >= end)
    return uvloop.run(_run(port, run, callers, kind, seconds, context))


def call_count(
    port: int,
    requests: Iterator[bytes],
    callers: int,
    kind: Callable[[CallerRun], LoadConnection],
    *,
    count: int,
    context: ssl.SSLContext | None = None,
) -> LoadRunResult:
    """Sends `count` requests altogether, on `callers` connections. With a `context` over TLS."""
    run = CallerRun(requests, lambda sent: sent >= count)
    return uvloop.run(_run(port, run, callers, kind, RUN_TIMEOUT, context))
