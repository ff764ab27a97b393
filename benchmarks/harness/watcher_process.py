"""Thousands of watchers in one process, lean enough to tell when each of them heard: epoll and bare sockets.

Run as a process and told what to do in lines of JSON on standard input; it answers each with a line of JSON.

{"open": N, "port": P, "hello": HEX, "greeting": HEX}   connect N more; each is open when `greeting` has come
{"hear": FIRST, "count": N, "token": HEX, "timeout": S}
    listen (says null first) until all have heard N marks from FIRST on, and count that piece of text meanwhile

What changes carries a mark, `mark-` and eight digits, each another one. Times are of the monotonic clock, which all
processes share.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Final

MARK: Final = re.compile(rb"mark-(\d{8})")
MARK_TAIL_BYTES: Final = len("mark-00000000") - 1
"""As much of a read is kept, in case a mark is cut in two."""
READ_BYTES: Final = 256 * 1024
MAX_CONCURRENT_CONNECTS: Final = 200
"""Connections that are being opened at a time: the listener's queue is bounded."""
CONNECT_TIMEOUT: Final = 60.0
"""Seconds for one batch of connections to open; then those that are missing are told."""


@dataclass(slots=True)
class WatcherConnection:
    """What one connection has heard."""

    peer: socket.socket
    is_ready: bool = False
    marks: int = 0
    """One bit for each mark that it has heard."""
    received_at: float = 0.0
    """When it had heard the last of them."""
    answer_count: int = 0
    tail: bytes = b""


class WatcherProcess:
    """All of them, on one epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._of: dict[int, WatcherConnection] = {}
        # Made once: making room for each read would cost more than all the rest.
        self._room = memoryview(bytearray(READ_BYTES))
        self._greeting = b""
        self._token = b"\x00"
        self._first = 0
        self._wanted = 0
        self._missing = 0
        self._lost = 0

    def open(self, count: int, port: int, hello: bytes, greeting: bytes) -> int:
        """Connect so many more; how many are open then."""
        self._greeting = greeting
        left = count
        while left:
            batch = [self._connect(port, hello) for _ in range(min(left, MAX_CONCURRENT_CONNECTS))]
            left -= len(batch)
            end = monotonic() + CONNECT_TIMEOUT
            while not all(watcher.is_ready for watcher in batch) and monotonic() < end:
                self._listen(0.1)
        return sum(watcher.is_ready for watcher in self._of.values())

    def deliver(self, first: int, count: int, token: bytes, timeout: float) -> dict[str, object]:
        """Listen until all have heard so many marks; when each had, and how often each heard the token."""
        self._first, self._wanted, self._token = first, (1 << count) - 1, token
        for watcher in self._of.values():
            watcher.marks, watcher.received_at, watcher.answer_count = 0, 0.0, 0
        self._missing = len(self._of)
        end = monotonic() + timeout
        while self._missing and not self._lost and monotonic() < end:
            self._listen(0.05)
        heard = sorted(watcher.received_at for watcher in self._of.values() if watcher.marks == self._wanted)
        return {
            "at": heard,
            "counted": sorted(watcher.answer_count for watcher in self._of.values()),
            "lost": self._lost,
        }

    def _connect(self, port: int, hello: bytes) -> WatcherConnection:
        peer = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT)
        peer.sendall(hello)
        peer.setblocking(False)
        watcher = self._of[peer.fileno()] = WatcherConnection(peer)
        self._epoll.register(peer.fileno(), select.EPOLLIN)
        return watcher

    def _listen(self, timeout: float) -> None:
        for file, _ in self._epoll.poll(timeout):
            watcher = self._of[file]
            size = watcher.peer.recv_into(self._room)
            if size:
                self._hear(watcher, self._room[:size].tobytes())
            else:
                self._lost += 1
                self._epoll.unregister(file)

    def _hear(self, watcher: WatcherConnection, data: bytes) -> None:
        heard = watcher.tail + data
        if not watcher.is_ready:
            watcher.is_ready = self._greeting in heard
        watcher.answer_count += data.count(self._token)
        watcher.tail = heard[-MARK_TAIL_BYTES:]
        if not self._missing or watcher.marks == self._wanted:
            return
        for mark in MARK.findall(heard):
            place = int(mark) - self._first
            if place >= 0:
                watcher.marks |= 1 << place
        if watcher.marks == self._wanted:
            watcher.received_at = monotonic()
            self._missing -= 1

    def run(self) -> None:
        """Until standard input ends."""
        for line in sys.stdin:
            order = json.loads(line)
            if "open" in order:
                hello, greeting = bytes.fromhex(order["hello"]), bytes.fromhex(order["greeting"])
                _answer(self.open(order["open"], order["port"], hello, greeting))
            else:
                _answer(None)
                _answer(self.deliver(order["hear"], order["count"], bytes.fromhex(order["token"]), order["timeout"]))


def _answer(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    WatcherProcess().run()
