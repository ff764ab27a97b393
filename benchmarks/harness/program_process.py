"""Thousands of programs in one process, as the client library makes them appear to a registry node.

Each program has an instance with a lease, which it renews by itself, and one stream in which it follows a few services.
It acknowledges what a drain may wait for. Some are replaced meanwhile: a new instance registers, its metadata change,
the old instance drains and deregisters.

Run as a process. It reads commands as lines of JSON on standard input, and answers each with a line of JSON:

{"open": COUNT, "first": NUMBER, "programs": ALL, "port": P, "headers": HEX, "source": IP}
    registers the instances of COUNT programs from NUMBER on, and opens their streams
{"hold": SECONDS, "every": S, "replaced_per_second": R, "renewals": FILE, "delays": FILE}
    renews every S seconds; writes the seconds of each renewal and the delay of each delivered change to the files

Every program has a connection for its stream. All other requests of the process share `POOL_SIZE` connections, since a
system limits how many files a node may open.
"""

from __future__ import annotations

import heapq
import json
import re
import select
import socket
import sys
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, monotonic_ns, process_time
from typing import Final

PROGRAMS_PER_SERVICE: Final = 100
SERVICES_FOLLOWED: Final = 5
POOL_SIZE: Final = 100
"""Connections that all requests of the process share, except for the streams. Requests wait while all are busy."""
MAX_CONCURRENT_OPENS: Final = 200
"""Streams that are opened at a time, since the listener's queue is bounded."""
OPEN_TIMEOUT: Final = 60.0
"""Seconds in which a batch of streams, or a thousand registrations, must be done; else the process ends."""
STEP_PAUSE: Final = 1.0
"""Seconds between the steps by which an instance replaces another."""
TTL: Final = 30.0
READ_BYTES: Final = 256 * 1024
MAX_POLL: Final = 0.005
"""Seconds that the loop waits for answers, at most, before it looks for renewals that are due."""

_STATUS: Final = re.compile(rb"HTTP/1.1 (20[014]) ")
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_WATCH: Final = re.compile(rb'"watch":"([0-9a-f]+)"')
_REVISION: Final = re.compile(rb'"revision":(\d+),"age"')
_MARK: Final = re.compile(rb"mark-(\d+)")
_AWAITED: Final = (b'"removed":', b'"status":"draining"')
"""Parts of the events that a consumer acknowledges."""

OnAnswer = Callable[[float], None]
"""Gets the seconds from when a request was due until it was answered."""


@dataclass(slots=True, eq=False)
class PoolConnection:
    """A connection for requests, and the one that it is waiting for."""

    peer: socket.socket
    due: float = 0.0
    on_answer: OnAnswer | None = None
    rest: bytes = b""


@dataclass(slots=True, eq=False)
class Program:
    """A program: its instance and its stream."""

    number: int
    generation: int = 0
    stream: socket.socket | None = None
    watch: bytes = b""
    """The token of its watch at the node; empty until the stream is open."""
    rest: bytes = b""
    due_ack: int = 0
    """The revision to acknowledge after the acknowledgement that is under way."""
    is_acking: bool = False

    @property
    def service(self) -> str:
        return f"s-{self.number // PROGRAMS_PER_SERVICE:04}"

    def path(self, generation: int) -> str:
        return f"/api/v1/services/{self.service}/instances/i-{self.number:06}-{generation:04}"


class ProgramProcess:
    """All programs of the process, on one epoll."""

    def __init__(self, port: int, headers: bytes, source: str, programs: int) -> None:
        self._port, self._headers, self._source = port, headers, source
        self._services = max(SERVICES_FOLLOWED, programs // PROGRAMS_PER_SERVICE)
        self._epoll = select.epoll()
        self._connections: dict[int, PoolConnection] = {}
        self._streams: dict[int, Program] = {}
        self._programs: list[Program] = []
        self._idle: list[PoolConnection] = []
        self._waiting: deque[tuple[bytes, float, OnAnswer]] = deque()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._delays = array("d")
        self._renewals = array("d")
        self._acks = array("d")
        self._heartbeats = self._events = self._answered = 0
        for _ in range(POOL_SIZE):
            peer = self._connect()
            self._connections[peer.fileno()] = connection = PoolConnection(peer)
            self._idle.append(connection)

    def open(self, first: int, count: int) -> int:
        """Registers the instances and opens the streams; returns how many are open."""
        self._programs = [Program(number) for number in range(first, first + count)]
        for start in range(0, count, 1_000):
            batch = self._programs[start : start + 1_000]
            done, wanted = self._answered, self._answered + len(batch)
            for program in batch:
                self._register(program)
            self._poll_until(lambda wanted=wanted: self._answered >= wanted, f"registrations after {done}")  # type: ignore[misc]
        for start in range(0, count, MAX_CONCURRENT_OPENS):
            batch = self._programs[start : start + MAX_CONCURRENT_OPENS]
            for program in batch:
                self._follow(program)
            self._poll_until(
                lambda batch=batch: all(program.watch for program in batch),  # type: ignore[misc]
                f"streams after {start}",
            )
        return len(self._streams)

    def hold(self, seconds: float, every: float, replaced_per_second: float) -> dict[str, object]:
        """Renews, follows and replaces; returns what was counted."""
        self._delays, self._renewals, self._acks = array("d"), array("d"), array("d")
        self._heartbeats = self._events = 0
        began, cpu, count = monotonic(), process_time(), len(self._programs)
        steps: list[tuple[float, int, int, Program]] = []
        turn = replaced = 0
        while (now := monotonic()) < began + seconds:
            while (due := began + turn * every / count) <= now:
                program = self._programs[turn % count]
                self._request("POST", f"{program.path(program.generation)}/renew", b"", due, self._renewals.append)
                turn += 1
            while began + (replaced + 1) / replaced_per_second <= now:
                # A prime, so that services are replaced here and there.
                heapq.heappush(steps, (now, replaced, 0, self._programs[replaced * 7_919 % count]))
                replaced += 1
            while steps and steps[0][0] <= now:
                at, order, step, program = heapq.heappop(steps)
                if self._replace(program, step):
                    heapq.heappush(steps, (at + STEP_PAUSE, order, step + 1, program))
            self._poll(MAX_POLL)
        left = len(self._waiting) + POOL_SIZE - len(self._idle)
        return {
            "renewals_due": turn,
            "replaced": replaced,
            "unanswered": left,
            "acks": len(self._acks),
            "events": self._events,
            "heartbeats": self._heartbeats,
            "share": (process_time() - cpu) / (monotonic() - began),
        }

    def save(self, renewals: str, delays: str) -> None:
        Path(renewals).write_bytes(self._renewals.tobytes())
        Path(delays).write_bytes(self._delays.tobytes())

    def _replace(self, program: Program, step: int) -> bool:
        """Takes a step by which a new instance replaces the old one; returns whether another step follows."""
        now, old = monotonic(), program.path(program.generation - 1)
        if step == 0:
            program.generation += 1
            self._register(program)
        elif step == 1:
            self._register(program)
        elif step == 2:
            self._request("PUT", f"{old}/override", b'{"status":"draining"}', now, self._ignore)
        else:
            self._request("DELETE", old, b"", now, self._ignore)
        return step < 3

    def _register(self, program: Program) -> None:
        body = {
            "address": f"10.{program.number >> 8 & 255}.{program.number & 255}.{program.generation & 255}",
            "port": 8000,
            "zone": "eu-1a",
            "tags": ["v2"],
            "metadata": {"version": f"mark-{monotonic_ns()}"},
            "ttl": TTL,
        }
        path = program.path(program.generation)
        self._request("PUT", path, json.dumps(body).encode(), monotonic(), self._ignore)

    def _follow(self, program: Program) -> None:
        """Opens the stream of a program: its own service, and others at fixed distances."""
        own = program.number // PROGRAMS_PER_SERVICE
        names = {f"s-{(own + n * 37) % self._services:04}" for n in range(SERVICES_FOLLOWED)}
        query = "&".join(f"service={name}" for name in sorted(names))
        query += f"&acks=true&consumer={program.number:016x}&name=program-{program.number}"
        peer = program.stream = self._connect()
        self._streams[peer.fileno()] = program
        peer.send(
            b"GET /api/v1/watch?%b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept: text/event-stream\r\n%b\r\n"
            % (query.encode(), self._port, self._headers)
        )

    def _connect(self) -> socket.socket:
        peer = socket.socket()
        # Sources of several addresses, since one has too few ports.
        peer.bind((self._source, 0))
        peer.settimeout(OPEN_TIMEOUT)
        peer.connect(("127.0.0.1", self._port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoll.register(peer.fileno(), select.EPOLLIN)
        return peer

    def _ignore(self, _seconds: float) -> None:
        """Takes an answer that is not measured."""

    def _request(self, method: str, path: str, body: bytes, due: float, on_answer: OnAnswer) -> None:
        kind = b"content-type: application/json\r\n" if body else b""
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\ncontent-length: {len(body)}\r\n".encode()
        self._waiting.append((b"%b%b%b\r\n%b" % (head, kind, self._headers, body), due, on_answer))
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.pop()
            request, connection.due, connection.on_answer = self._waiting.popleft()
            connection.peer.send(request)

    def _poll_until(self, is_done: Callable[[], bool], what: str) -> None:
        end = monotonic() + OPEN_TIMEOUT
        while not is_done():
            if monotonic() > end:
                raise SystemExit(f"no {what} within {OPEN_TIMEOUT:.0f} s")
            self._poll(MAX_POLL)

    def _poll(self, timeout: float) -> None:
        for file, _ in self._epoll.poll(timeout):
            program = self._streams.get(file)
            if program is not None and program.stream is not None:
                size = program.stream.recv_into(self._buffer)
                self._take_events(program, self._buffer[:size].tobytes())
            else:
                connection = self._connections[file]
                size = connection.peer.recv_into(self._buffer)
                self._take_answer(connection, self._buffer[:size].tobytes())

    def _take_answer(self, connection: PoolConnection, data: bytes) -> None:
        if not data or connection.on_answer is None:
            raise SystemExit("the node closed a connection" if not data else f"an answer to no request: {data[:300]!r}")
        data = connection.rest + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            if not _STATUS.match(data):
                raise SystemExit(f"a request failed: {data[:500]!r}")
            length = _LENGTH.search(data, 0, end)
            if len(data) >= end + 4 + int(length[1] if length else 0):
                on_answer, connection.on_answer, connection.rest = connection.on_answer, None, b""
                self._idle.append(connection)
                self._answered += 1
                on_answer(monotonic() - connection.due)
                self._send_waiting()
                return
        connection.rest = data

    def _take_events(self, program: Program, data: bytes) -> None:
        if not data:
            raise SystemExit(f"the node ended the stream of program {program.number}")
        data = program.rest + data
        whole, found, rest = data.rpartition(b"\n\n")
        program.rest = rest if len(rest) > 2 else b""  # Two bytes end a chunk.
        if not found:
            program.rest = data
            return
        if not program.watch:
            self._open(program, data)
        elif b"event: change" not in whole:
            self._heartbeats += 1
        else:
            self._take_changes(program, whole)

    def _open(self, program: Program, data: bytes) -> None:
        watch, revisions = _WATCH.search(data), _REVISION.findall(data)
        if watch is None or not revisions:
            program.rest = data
            return
        program.watch, program.rest = watch[1], b""
        self._acknowledge(program, int(revisions[-1]))

    def _take_changes(self, program: Program, events: bytes) -> None:
        now = monotonic_ns()
        for event in events.split(b"\n\n"):
            if b"event: change" in event:
                self._events += 1
                if b'"status":"draining"' not in event:  # It repeats the mark of an earlier change.
                    self._delays.extend([(now - int(mark)) / 1e9 for mark in _MARK.findall(event)])
        if any(part in events for part in _AWAITED):
            self._acknowledge(program, int(_REVISION.findall(events)[-1]))

    def _acknowledge(self, program: Program, revision: int) -> None:
        """Acknowledges a revision; while an acknowledgement is under way, the latest one waits for its answer."""
        if program.is_acking:
            program.due_ack = revision
            return
        program.is_acking, program.due_ack = True, 0

        def answered(seconds: float) -> None:
            self._acks.append(seconds)
            program.is_acking = False
            if program.due_ack:
                self._acknowledge(program, program.due_ack)

        path = f"/api/v1/watches/{program.watch.decode()}/acknowledge"
        self._request("POST", path, b'{"revision":%d}' % revision, monotonic(), answered)


def main() -> None:
    process: ProgramProcess | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if "open" in command:
            headers = bytes.fromhex(command["headers"])
            process = ProgramProcess(command["port"], headers, command["source"], command["programs"])
            answer: object = process.open(command["first"], command["open"])
        elif process is not None:
            answer = process.hold(command["hold"], command["every"], command["replaced_per_second"])
            process.save(command["renewals"], command["delays"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
