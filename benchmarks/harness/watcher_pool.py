"""The process of watchers, as whoever starts it sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.harness import watcher_process
from benchmarks.harness.load import WrongAnswers

DELIVERY_TIMEOUT: Final = 30.0
"""Seconds in which all must have heard of a change; else the benchmark fails."""
QUIET_BEFORE_CHANGE: Final = 0.3
"""Seconds of quiet before a change: what was before it is over, and nothing waits to be coalesced with it."""


@dataclass(frozen=True, slots=True)
class WatchProtocol:
    """How watchers of one kind of server begin: what they say, what they then hear, and what tells one answer."""

    request: bytes
    ready_marker: bytes
    answer_marker: bytes


@dataclass(frozen=True, slots=True)
class Deliveries:
    """When changes were sent and when each watcher had heard of all of them, on the monotonic clock, sorted;
    `counted` is how many answers each watcher got.
    """

    sent_at: list[float]
    received_at: list[float]
    answer_counts: list[int]


class WatcherPool:
    """So many watchers of one server."""

    def __init__(self, protocol: WatchProtocol, port: int) -> None:
        self._ear = protocol
        self._port = port
        self.count = 0
        self._process = subprocess.Popen(
            [sys.executable, str(watcher_process.__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, count: int) -> None:
        """Have so many more."""
        self._order(open=count, port=self._port, hello=self._ear.request.hex(), greeting=self._ear.ready_marker.hex())
        self.count += count
        opened = self._answer()
        if opened != self.count:
            raise WrongAnswers(f"{opened} of {self.count} watchers were greeted")
        sleep(QUIET_BEFORE_CHANGE)

    def deliver(self, marks: Sequence[int], change: Callable[[Sequence[int]], list[float]]) -> Deliveries:
        """Make changes with these marks, which follow one another, and wait until everybody has heard of each."""
        sleep(QUIET_BEFORE_CHANGE)
        self._order(hear=marks[0], count=len(marks), token=self._ear.answer_marker.hex(), timeout=DELIVERY_TIMEOUT)
        self._answer()
        sent = change(marks)
        heard = self._answer()
        if heard["lost"]:
            raise WrongAnswers(f"{heard['lost']} of {self.count} watchers lost their connection")
        if len(heard["at"]) < self.count:
            raise WrongAnswers(
                f"{len(heard['at'])} of {self.count} watchers heard of the change in {DELIVERY_TIMEOUT:.0f} s"
            )
        return Deliveries(sent, heard["at"], heard["counted"])

    def _order(self, **order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WrongAnswers("the process of watchers ended")
        return json.loads(line)


def record_send_times(sent_at: list[float], request: Callable[[int], bytes], marks: Sequence[int]) -> Iterator[bytes]:
    """The requests one by one, noting when each is sent."""
    for mark in marks:
        text = request(mark)
        sent_at.append(monotonic())
        yield text
