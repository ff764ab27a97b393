"""An observer for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from adsum.core.catalog.changes import Batch
from adsum.core.model import Check, Key, Outcome
from adsum.ports import ProbeLag


@dataclass
class RecordingObserver:
    """Records all events."""

    batches: list[Batch] = field(default_factory=list)
    publications: list[tuple[int, int]] = field(default_factory=list)
    deliveries: list[float] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)
    refusals: list[tuple[str, Exception]] = field(default_factory=list)
    probes: list[tuple[Key, str, Outcome]] = field(default_factory=list)
    lags: list[ProbeLag] = field(default_factory=list)
    guards: list[tuple[str, int]] = field(default_factory=list)

    def committed(self, batch: Batch, took: float) -> None:
        self.batches.append(batch)

    def published(self, revision: int, woken: int) -> None:
        self.publications.append((revision, woken))

    def delivered(self, took: float) -> None:
        self.deliveries.append(took)

    def answered(self, operation: str, code: int, took: float) -> None:
        self.answers.append((operation, code))

    def refused(self, operation: str, error: Exception) -> None:
        self.refusals.append((operation, error))

    def probed(self, key: Key, check: Check, outcome: Outcome) -> None:
        self.probes.append((key, check.name, outcome))

    def lagged(self, lag: ProbeLag) -> None:
        self.lags.append(lag)

    def guarded(self, service: str, held: int) -> None:
        self.guards.append((service, held))
