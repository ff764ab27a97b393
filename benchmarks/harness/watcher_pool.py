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

TIMEOUT: Final = 30.0
"""Seconds in which all must have heard of a change; else the benchmark fails."""
SETTLE: Final = 0.3
"""Seconds of quiet before a change: what was before it is over, and nothing waits to be coalesced with it."""


@dataclass(frozen=True, slots=True)
class Ear:
    """How watchers of one kind of server begin: what they say, what they then hear, and what tells one answer."""

    hello: bytes
    greeting: bytes
    token: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """When changes were sent and when each watcher had heard of all of them, on the monotonic clock, sorted;
    `counted` is how many answers each watcher got.
    """

    sent: list[float]
    at: list[float]
    counted: list[int]


class Crowd:
    """So many watchers of one server."""

    def __init__(self, ear: Ear, port: int) -> None:
        self._ear = ear
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
        self._order(open=count, port=self._port, hello=self._ear.hello.hex(), greeting=self._ear.greeting.hex())
        self.count += count
        opened = self._answer()
        if opened != self.count:
            raise WrongAnswers(f"{opened} of {self.count} watchers were greeted")
        sleep(SETTLE)

    def hear(self, marks: Sequence[int], change: Callable[[Sequence[int]], list[float]]) -> Heard:
        """Make changes with these marks, which follow one another, and wait until everybody has heard of each."""
        sleep(SETTLE)
        self._order(hear=marks[0], count=len(marks), token=self._ear.token.hex(), timeout=TIMEOUT)
        self._answer()
        sent = change(marks)
        heard = self._answer()
        if heard["lost"]:
            raise WrongAnswers(f"{heard['lost']} of {self.count} watchers lost their connection")
        if len(heard["at"]) < self.count:
            raise WrongAnswers(f"{len(heard['at'])} of {self.count} watchers heard of the change in {TIMEOUT:.0f} s")
        return Heard(sent, heard["at"], heard["counted"])

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


def stamped(sent: list[float], request: Callable[[int], bytes], marks: Sequence[int]) -> Iterator[bytes]:
    """The requests one by one, noting when each is sent."""
    for mark in marks:
        text = request(mark)
        sent.append(monotonic())
        yield text
