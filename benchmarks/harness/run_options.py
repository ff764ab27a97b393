"""How much of everything, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`folder` is on a real disk, fresh for each benchmark. `quick` runs say that everything works, not how fast."""

    folder: Path
    quick: bool = False

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        return quick if self.quick else full
