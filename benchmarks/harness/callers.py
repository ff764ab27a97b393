"""Our own load: callers over bare sockets, thin enough not to be what is measured. Runs wherever Python does."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Final, cast

import uvloop

from benchmarks.harness.load import Load, quantile

PATIENCE: Final = 30.0
"""Seconds after the end of a run in which answers may still come; then those that are missing count as failed."""
LONGEST: Final = 90.0
"""Seconds that a run of a given number of requests may take."""


class Run:
    """What the callers of one run share."""

    def __init__(self, requests: Iterator[bytes], until: Callable[[int], bool]) -> None:
        """`requests` are what is to be sent, next by next; `until` is asked with the number sent so far."""
        self._requests = requests
        self._until = until
        self.sent = 0
        self.failed = 0
        self.bytes = 0
        self.took = array("d")
        self.over = False

    def next(self) -> bytes | None:
        """The next request; None when the run is over."""
        if self.over or self._until(self.sent):
            self.over = True
            return None
        self.sent += 1
        return next(self._requests)

    def answered(self, took: float, size: int) -> None:
        self.took.append(took)
        self.bytes += size


class Caller(asyncio.Protocol):
    """One connection: asks, waits for the answer, asks again; `done` when the run is over."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.began = 0.0
        self.asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.finish(lost=self.asking)

    def finish(self, lost: bool = False) -> None:
        self.asking = False
        if lost:
            self.run.failed += 1
        if not self.done.done():
            self.done.set_result(None)

    def ended(self, ok: bool, size: int) -> None:
        """An answer is complete: note it, and ask again."""
        self.asking = False
        if ok:
            self.run.answered(perf_counter() - self.began, size)
        else:
            self.run.failed += 1
        self.ask()

    def ask(self) -> None:
        request = self.run.next()
        if request is None:
            self.finish()
            return
        self.asking = True
        self.began = perf_counter()
        self.write(request)

    def write(self, request: bytes) -> None:
        self.transport.write(request)


class Http1(Caller):
    """HTTP/1.1, kept alive. Requests are whole texts; answers must be 200 or 201 and state their length."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._head = b""
        self._left = 0
        self._size = 0
        self._ok = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.ask()

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
            self.ended(self._ok, self._size)


async def _run(port: int, run: Run, callers: int, kind: Callable[[Run], Caller], limit: float) -> Load:
    loop = asyncio.get_running_loop()
    began = perf_counter()
    pairs = [await loop.create_connection(lambda: kind(run), "127.0.0.1", port) for _ in range(callers)]
    _, late = await asyncio.wait([caller.done for _, caller in pairs], timeout=limit + PATIENCE)
    took = perf_counter() - began
    for transport, _ in pairs:
        transport.abort()
    answers = sorted(run.took)
    return Load(
        requests=len(answers),
        failed=run.failed + len(late),
        took=took,
        p50=quantile(answers, 0.5),
        p99=quantile(answers, 0.99),
        answer=run.bytes / max(1, len(answers)),
    )


def call(port: int, requests: Iterator[bytes], callers: int, kind: Callable[[Run], Caller], *, seconds: float) -> Load:
    """Let `callers` ask for so many seconds."""
    end = perf_counter() + seconds
    return uvloop.run(_run(port, Run(requests, lambda _: perf_counter() >= end), callers, kind, seconds))


def call_all(port: int, requests: Iterator[bytes], callers: int, kind: Callable[[Run], Caller], *, count: int) -> Load:
    """Let `callers` ask so many times altogether."""
    return uvloop.run(_run(port, Run(requests, lambda sent: sent >= count), callers, kind, LONGEST))
