"""Thousands of watchers in one process, lean enough to tell when each of them heard: epoll and bare sockets.

Run as a process and told what to do in lines of JSON on standard input; it answers each with a line of JSON.

{"open": N, "port": P, "hello": HEX, "greeting": HEX}   connect N more; each is open when `greeting` has come
{"begin": true, "count": HEX}                           forget what was heard; count that piece of text from now on
{"until": MARK, "timeout": S}                           listen (says null first) until all have heard that mark

What changes carries a mark, `mark-` and eight digits that only grow. Times are of the monotonic clock, which all
processes share.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

MARK: Final = b"mark-"
DIGITS: Final = 8
TAIL: Final = len(MARK) + DIGITS - 1
"""As much of a read is kept, in case a mark is cut in two."""
READ: Final = 256 * 1024
OPEN_AT_ONCE: Final = 200
"""Connections that are being opened at a time: the listener's queue is bounded."""
PATIENCE: Final = 60.0
"""Seconds for one batch of connections to open; then those that are missing are told."""


@dataclass(slots=True)
class Watcher:
    """What one connection has heard."""

    peer: socket.socket
    greeted: bool = False
    mark: int = -1
    at: float = 0.0
    counted: int = 0
    tail: bytes = b""


class Watchers:
    """All of them, on one epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._of: dict[int, Watcher] = {}
        self._greeting = b""
        self._count = b"\x00"
        self._wanted = 0
        self._missing = 0
        self._lost = 0

    def open(self, count: int, port: int, hello: bytes, greeting: bytes) -> int:
        """Connect so many more; how many are open then."""
        self._greeting = greeting
        left = count
        while left:
            batch = [self._connect(port, hello) for _ in range(min(left, OPEN_AT_ONCE))]
            left -= len(batch)
            end = monotonic() + PATIENCE
            while not all(watcher.greeted for watcher in batch) and monotonic() < end:
                self._listen(0.1)
        return sum(watcher.greeted for watcher in self._of.values())

    def begin(self, count: bytes) -> None:
        """Forget what was heard."""
        self._listen(0.0)
        self._count = count
        for watcher in self._of.values():
            watcher.mark, watcher.at, watcher.counted = -1, 0.0, 0

    def until(self, mark: int, timeout: float) -> dict[str, object]:
        """Listen until all have heard `mark`; when each did, and how often each heard what is counted."""
        end = monotonic() + timeout
        self._wanted = mark
        self._missing = sum(watcher.mark < mark for watcher in self._of.values())
        while self._missing and not self._lost and monotonic() < end:
            self._listen(0.05)
        heard = sorted(watcher.at for watcher in self._of.values() if watcher.mark >= mark)
        return {"at": heard, "counted": sorted(watcher.counted for watcher in self._of.values()), "lost": self._lost}

    def _connect(self, port: int, hello: bytes) -> Watcher:
        peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        peer.sendall(hello)
        peer.setblocking(False)
        watcher = self._of[peer.fileno()] = Watcher(peer)
        self._epoll.register(peer.fileno(), select.EPOLLIN)
        return watcher

    def _listen(self, timeout: float) -> None:
        for file, _ in self._epoll.poll(timeout):
            watcher = self._of[file]
            data = watcher.peer.recv(READ)
            if data:
                self._hear(watcher, data)
            else:
                self._lost += 1
                self._epoll.unregister(file)

    def _hear(self, watcher: Watcher, data: bytes) -> None:
        heard = watcher.tail + data
        if not watcher.greeted:
            watcher.greeted = self._greeting in heard
        watcher.counted += data.count(self._count)
        place = heard.rfind(MARK)
        watcher.tail = heard[-TAIL:]
        if place < 0 or place + len(MARK) + DIGITS > len(heard):
            return
        mark = int(heard[place + len(MARK) : place + len(MARK) + DIGITS])
        if mark > watcher.mark:
            if watcher.mark < self._wanted <= mark:
                self._missing -= 1
            watcher.mark, watcher.at = mark, monotonic()

    def listen_for_orders(self) -> None:
        """Until standard input ends."""
        for line in sys.stdin:
            order = json.loads(line)
            if "until" in order:
                _answer(None)
            _answer(self._obey(order))

    def _obey(self, order: dict[str, Any]) -> object:
        if "open" in order:
            hello, greeting = bytes.fromhex(order["hello"]), bytes.fromhex(order["greeting"])
            return self.open(order["open"], order["port"], hello, greeting)
        if "begin" in order:
            self.begin(bytes.fromhex(order["count"]))
            return None
        return self.until(order["until"], order["timeout"])


def _answer(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    Watchers().listen_for_orders()
