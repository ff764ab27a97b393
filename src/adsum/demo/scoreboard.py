"""What the demo knows and shows: counts, shares, how instances stand, and what happened when."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from adsum.client.views.view import View

RATE_WINDOW: Final = 3.0
"""Seconds over which rate and shares are taken."""
MAX_NOTES: Final = 200
"""How much of the time line is kept; the oldest is forgotten."""
MAX_FAILURES_KEPT: Final = 5
"""How many failures are kept word by word."""


class NoteKind(StrEnum):
    """Who says it."""

    ACT = "act"
    """The story: what is being done."""
    CATALOG = "catalog"
    """The registry: what became of it."""
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Note:
    """Something happened, `at` seconds after the beginning."""

    at: float
    kind: NoteKind
    text: str


@dataclass(slots=True)
class Scoreboard:
    """Written by the story, the traffic and the watchers; read by whoever shows it."""

    on_note: Callable[[Note], None]
    started_at: float = field(default_factory=time.monotonic)
    scene: str = ""
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=MAX_NOTES))
    views: dict[str, View] = field(default_factory=dict)
    sent: int = 0
    answered: int = 0
    failed: int = 0
    sent_through_gateway: int = 0
    """Those of them that were sent to the gateway."""
    tries: int = 0
    """Requests that the callers by name really sent; what was tried again counts twice."""
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    registry_up: bool = False
    changes: int = 0
    """In the catalog, so far."""
    measurements: list[tuple[str, str]] = field(default_factory=list)
    """What the summary tells besides the counts."""
    _recent: deque[tuple[float, str]] = field(default_factory=deque)

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.started_at

    def note(self, kind: NoteKind, text: str) -> None:
        """Put something on the time line."""
        note = Note(self.now(), kind, text)
        self.notes.append(note)
        self.changes += kind is NoteKind.CATALOG
        if kind is NoteKind.ACT:
            self.scene = text
        self.on_note(note)

    def call_answered(self, instance: str, took: float) -> None:
        """A call was answered by `instance` after `took` seconds, retries included."""
        self.answered += 1
        self.slowest = max(self.slowest, took)
        self._recent.append((self.now(), instance))

    def call_failed(self, why: str) -> None:
        """A call was not answered well: the caller saw it."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(why)
        self.note(NoteKind.BAD, f"a request failed: {why}")

    def shares(self) -> Mapping[str, int]:
        """How many of the latest calls each instance answered."""
        since = self.now() - RATE_WINDOW
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        return Counter(instance for _, instance in self._recent)

    @property
    def retried(self) -> int:
        """How often something was tried again."""
        return max(0, self.tries - (self.sent - self.sent_through_gateway))

    def rate(self) -> float:
        """Answers a second."""
        return sum(self.shares().values()) / RATE_WINDOW
