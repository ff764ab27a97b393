"""Starts and controls the process of watchers (`watcher_process`)."""

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
"""Seconds in which every watcher must get a change; else the benchmark fails."""
QUIET_BEFORE_CHANGE: Final = 0.5
"""Seconds of quiet before a change, so that it is not coalesced with earlier ones: more than the interval between two
wakeups of ten thousand watches (`adsum.watches.WAKE_INTERVAL_PER_WATCH`)."""


@dataclass(frozen=True, slots=True)
class WatchProtocol:
    """The watch protocol of one server.

    `request` opens a watch; `@number@` in it becomes the number of the watch. `ready_marker` shows that it is open, and
    `answer_marker` is in each answer once.
    """

    request: bytes
    ready_marker: bytes
    answer_marker: bytes


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The times at which changes were sent, and at which each watcher had received all of them.

    They are sorted, on the monotonic clock. `answer_counts` are the numbers of answers that watchers got.
    """

    sent_at: list[float]
    received_at: list[float]
    answer_counts: list[int]


class WatcherPool:
    """The watchers of one server, in a process of their own."""

    def __init__(self, protocol: WatchProtocol, port: int) -> None:
        self._protocol = protocol
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
        """Opens this many more watches. Raises `WrongAnswers`."""
        protocol = self._protocol
        self._command(
            open=count, port=self._port, request=protocol.request.hex(), ready_marker=protocol.ready_marker.hex()
        )
        self.count += count
        opened = self._result()
        if opened != self.count:
            raise WrongAnswers(f"{opened} of {self.count} watches were opened")
        sleep(QUIET_BEFORE_CHANGE)

    def deliver(self, marks: Sequence[int], change: Callable[[Sequence[int]], list[float]]) -> Deliveries:
        """Makes changes with these consecutive marks, and waits until every watcher has received all of them.

        Raises `WrongAnswers`.
        """
        sleep(QUIET_BEFORE_CHANGE)
        marker = self._protocol.answer_marker.hex()
        self._command(deliver=marks[0], count=len(marks), answer_marker=marker, timeout=DELIVERY_TIMEOUT)
        self._result()
        sent_at = change(marks)
        result = self._result()
        if result["lost"]:
            raise WrongAnswers(f"{result['lost']} of {self.count} watchers lost their connection")
        received = len(result["received_at"])
        if received < self.count:
            raise WrongAnswers(f"{received} of {self.count} watchers got the change in {DELIVERY_TIMEOUT:.0f} s")
        return Deliveries(sent_at, result["received_at"], result["answer_counts"])

    def count_answers(self, seconds: float) -> int:
        """Returns how many answers all watchers get within these seconds."""
        self._command(count_seconds=seconds, answer_marker=self._protocol.answer_marker.hex())
        count: int = self._result()
        return count

    def _command(self, **command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def _result(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WrongAnswers("the process of watchers ended")
        return json.loads(line)


def record_send_times(sent_at: list[float], request: Callable[[int], bytes], marks: Sequence[int]) -> Iterator[bytes]:
    """Yields the requests, and adds to `sent_at` the time at which each is sent."""
    for mark in marks:
        text = request(mark)
        sent_at.append(monotonic())
        yield text
