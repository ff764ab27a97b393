"""The state that the demo shows: counts, shares of the calls, views of the services, and notes on a time line."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from adsum.client.views.view import View

RATE_WINDOW: Final = 3.0
"""Seconds over which the rate and the shares are computed."""
MAX_NOTES: Final = 200
"""The most notes that are kept; the oldest is dropped."""
MAX_FAILURES_KEPT: Final = 5
"""The most failures whose text is kept."""


class NoteKind(StrEnum):
    """The kind of a note."""

    STEP = "step"
    """A step of the scenario."""
    CATALOG = "catalog"
    """A change in the catalog."""
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Note:
    """A note on the time line, `at` seconds after the start."""

    at: float
    kind: NoteKind
    text: str


@dataclass(slots=True)
class Scoreboard:
    """The state of the demo. The scenario, the traffic and the watches write it; the displays read it."""

    on_note: Callable[[Note], None]
    started_at: float = field(default_factory=time.monotonic)
    scene: str = ""
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=MAX_NOTES))
    views: dict[str, View] = field(default_factory=dict)
    sent: int = 0
    answered: int = 0
    failed: int = 0
    sent_through_gateway: int = 0
    """Requests out of `sent` that went to the gateway."""
    tries: int = 0
    """Requests that the client library sent to instances; a retry counts again."""
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    registry_up: bool = False
    changes: int = 0
    """Changes of the catalog so far."""
    measurements: list[tuple[str, str]] = field(default_factory=list)
    """Further lines of the summary: name and value."""
    _recent: deque[tuple[float, str]] = field(default_factory=deque)

    def now(self) -> float:
        """Returns the seconds since the start."""
        return time.monotonic() - self.started_at

    def note(self, kind: NoteKind, text: str) -> None:
        """Add a note to the time line."""
        note = Note(self.now(), kind, text)
        self.notes.append(note)
        self.changes += kind is NoteKind.CATALOG
        if kind is NoteKind.STEP:
            self.scene = text
        self.on_note(note)

    def call_answered(self, instance: str, duration: float) -> None:
        """Count a call that `instance` answered after `duration` seconds, retries included."""
        self.answered += 1
        self.slowest = max(self.slowest, duration)
        self._recent.append((self.now(), instance))

    def call_failed(self, reason: str) -> None:
        """Count a call whose caller got an error."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(reason)
        self.note(NoteKind.BAD, f"a request failed: {reason}")

    def shares(self) -> Mapping[str, int]:
        """Returns how many of the latest calls each instance answered."""
        since = self.now() - RATE_WINDOW
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        return Counter(instance for _, instance in self._recent)

    @property
    def retried(self) -> int:
        """The number of retries."""
        return max(0, self.tries - (self.sent - self.sent_through_gateway))

    def rate(self) -> float:
        """Returns the answered calls per second."""
        return sum(self.shares().values()) / RATE_WINDOW
