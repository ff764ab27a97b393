"""A load generator over plain sockets and one epoll, cheaper than callers over asyncio.

It fits requests that cost the server little: there, callers over asyncio need more of the machine than the server.
"""

from __future__ import annotations

import select
import socket
from array import array
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

from benchmarks.harness.load import LoadRunResult, WrongAnswers, quantile

ANSWER_TIMEOUT: Final = 30.0
"""Seconds without any answer after which the run fails."""
READ_BYTES: Final = 64 * 1024

_HEADERS_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class SocketCaller:
    """One connection over HTTP/1.1 with keep-alive; it sends its request again after each answer."""

    __slots__ = ("peer", "rest", "send", "sent_at")

    def __init__(self, port: int, request: bytes) -> None:
        self.peer = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT)
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.rest = b""
        peer_send = self.peer.send

        def send() -> None:
            self.sent_at = perf_counter()
            if peer_send(request) != len(request):
                raise WrongAnswers("a request does not fit into the socket's buffer")

        self.send: Callable[[], None] = send

    def answer_size(self, data: bytes) -> int | None:
        """Returns the size of the body when the answer is complete, else None. Raises `WrongAnswers`."""
        data = self.rest + data if self.rest else data
        end = data.find(_HEADERS_END)
        if end >= 0:
            if not data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
                raise WrongAnswers(f"an answer is {data[:200]!r}")
            size = int(data[data.lower().index(_LENGTH) + len(_LENGTH) : end].split(b"\r\n", 1)[0])
            if len(data) >= end + len(_HEADERS_END) + size:
                self.rest = b""
                return size
        self.rest = data
        return None


def call_count(port: int, requests: Sequence[bytes], *, count: int) -> LoadRunResult:
    """Sends `count` requests altogether, with one connection for each of `requests`. Raises `WrongAnswers`."""
    callers = [SocketCaller(port, request) for request in requests]
    by_descriptor = {caller.peer.fileno(): caller for caller in callers}
    epoll = select.epoll()
    for descriptor in by_descriptor:
        epoll.register(descriptor, select.EPOLLIN)
    latencies, received = array("d"), 0
    began = perf_counter()
    for caller in callers[:count]:
        caller.send()
    sent = min(len(callers), count)
    while len(latencies) < count:
        ready = epoll.poll(ANSWER_TIMEOUT)
        if not ready:
            raise WrongAnswers(f"no answer in {ANSWER_TIMEOUT:.0f} s, {len(latencies)} of {count} requests are done")
        for descriptor, _ in ready:
            caller = by_descriptor[descriptor]
            data = caller.peer.recv(READ_BYTES)
            if not data:
                raise WrongAnswers("the server closed a connection")
            size = caller.answer_size(data)
            if size is None:
                continue
            latencies.append(perf_counter() - caller.sent_at)
            received += size
            if sent < count:
                sent += 1
                caller.send()
    took = perf_counter() - began
    epoll.close()
    for caller in callers:
        caller.peer.close()
    ordered = sorted(latencies)
    return LoadRunResult(
        requests=count,
        failed=0,
        took=took,
        p50=quantile(ordered, 0.5),
        p99=quantile(ordered, 0.99),
        answer_bytes=received / count,
    )
