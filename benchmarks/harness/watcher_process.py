"""Thousands of watchers in one process, over epoll and plain sockets, fast enough to time when each gets a change.

Run as a process. It reads commands as lines of JSON on standard input, and answers each with a line of JSON:

{"open": N, "port": P, "request": HEX, "ready_marker": HEX}
    opens N more watches; each is open when it has received `ready_marker`. `@number@` in the request is the number of
    the watch, in eight hexadecimal digits
{"count_seconds": S, "answer_marker": HEX}
    counts `answer_marker` on all watches for so many seconds, and answers with the count
{"deliver": FIRST, "count": N, "answer_marker": HEX, "timeout": S}
    answers null, then waits until every watcher has received N marks from FIRST on, and counts `answer_marker`

Every change has another mark: `mark-` and eight digits. Times are on the monotonic clock, which all processes share.
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

NUMBER_PLACEHOLDER: Final = b"@number@"
MARK: Final = re.compile(rb"mark-(\d{8})")
MARK_TAIL_BYTES: Final = len("mark-00000000") - 1
"""Bytes of a read that are kept, in case it ends inside a mark."""
READ_BYTES: Final = 256 * 1024
MAX_CONCURRENT_CONNECTS: Final = 200
"""Connections that are opened at a time, since the listener's queue is bounded."""
CONNECT_TIMEOUT: Final = 60.0
"""Seconds in which a batch of connections must open; missing ones are reported."""


@dataclass(slots=True)
class WatcherConnection:
    """One connection, and what it has received."""

    peer: socket.socket
    is_ready: bool = False
    marks: int = 0
    """One bit for each received mark."""
    received_at: float = 0.0
    """The time at which the last of them was received."""
    answer_count: int = 0
    tail: bytes = b""


class WatcherProcess:
    """All watchers, on one epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, WatcherConnection] = {}
        # Allocated once: a buffer for each read would cost more than everything else.
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._ready_marker = b""
        self._answer_marker = b"\x00"
        self._first = 0
        self._wanted = 0
        self._missing = 0
        self._lost = 0

    def open(self, count: int, port: int, request: bytes, ready_marker: bytes) -> int:
        """Opens this many more watches, and returns how many are open."""
        self._ready_marker = ready_marker
        left = count
        while left:
            batch = [self._connect(port, request) for _ in range(min(left, MAX_CONCURRENT_CONNECTS))]
            left -= len(batch)
            end = monotonic() + CONNECT_TIMEOUT
            while not all(watcher.is_ready for watcher in batch) and monotonic() < end:
                self._poll(0.1)
        return sum(watcher.is_ready for watcher in self._by_descriptor.values())

    def deliver(self, first: int, count: int, answer_marker: bytes, timeout: float) -> dict[str, object]:
        """Waits until all have received this many marks; returns the times and the counts of the marker."""
        self._first, self._wanted, self._answer_marker = first, (1 << count) - 1, answer_marker
        for watcher in self._by_descriptor.values():
            watcher.marks, watcher.received_at, watcher.answer_count = 0, 0.0, 0
        self._missing = len(self._by_descriptor)
        end = monotonic() + timeout
        while self._missing and not self._lost and monotonic() < end:
            self._poll(0.05)
        watchers = self._by_descriptor.values()
        received = sorted(watcher.received_at for watcher in watchers if watcher.marks == self._wanted)
        return {
            "received_at": received,
            "answer_counts": sorted(watcher.answer_count for watcher in watchers),
            "lost": self._lost,
        }

    def count_answers(self, seconds: float, answer_marker: bytes) -> int:
        """Returns how often the marker arrives on all watches within these seconds."""
        while self._poll(0.0):  # What arrived earlier does not count.
            pass
        self._answer_marker = answer_marker
        for watcher in self._by_descriptor.values():
            watcher.answer_count = 0
        end = monotonic() + seconds
        while monotonic() < end:
            self._poll(0.05)
        return sum(watcher.answer_count for watcher in self._by_descriptor.values())

    def _connect(self, port: int, request: bytes) -> WatcherConnection:
        peer = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT)
        peer.sendall(request.replace(NUMBER_PLACEHOLDER, b"%08x" % len(self._by_descriptor)))
        peer.setblocking(False)
        watcher = self._by_descriptor[peer.fileno()] = WatcherConnection(peer)
        self._epoll.register(peer.fileno(), select.EPOLLIN)
        return watcher

    def _poll(self, timeout: float) -> int:
        """Reads what has arrived, after `timeout` seconds at most. Returns over how many watches."""
        events = self._epoll.poll(timeout)
        for file, _ in events:
            watcher = self._by_descriptor[file]
            size = watcher.peer.recv_into(self._buffer)
            if size:
                self._receive(watcher, self._buffer[:size].tobytes())
            else:
                self._lost += 1
                self._epoll.unregister(file)
        return len(events)

    def _receive(self, watcher: WatcherConnection, data: bytes) -> None:
        received = watcher.tail + data
        if not watcher.is_ready:
            watcher.is_ready = self._ready_marker in received
        watcher.answer_count += data.count(self._answer_marker)
        watcher.tail = received[-MARK_TAIL_BYTES:]
        if not self._missing or watcher.marks == self._wanted:
            return
        for mark in MARK.findall(received):
            position = int(mark) - self._first
            if position >= 0:
                watcher.marks |= 1 << position
        if watcher.marks == self._wanted:
            watcher.received_at = monotonic()
            self._missing -= 1

    def run(self) -> None:
        """Executes commands until standard input ends."""
        for line in sys.stdin:
            command = json.loads(line)
            if "open" in command:
                request, ready_marker = bytes.fromhex(command["request"]), bytes.fromhex(command["ready_marker"])
                _answer(self.open(command["open"], command["port"], request, ready_marker))
            elif "count_seconds" in command:
                _answer(self.count_answers(command["count_seconds"], bytes.fromhex(command["answer_marker"])))
            else:
                _answer(None)
                marker = bytes.fromhex(command["answer_marker"])
                _answer(self.deliver(command["deliver"], command["count"], marker, command["timeout"]))


def _answer(result: object) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    WatcherProcess().run()
