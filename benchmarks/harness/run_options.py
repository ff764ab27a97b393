"""The options of a benchmark: its size, and its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`folder` is on a real disk, and new for each benchmark. A `quick` run only shows that everything works."""

    folder: Path
    quick: bool = False

    def count(self, full: int, quick: int) -> int:
        """Returns how many to use."""
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        """Returns how long to run."""
        return quick if self.quick else full
