"""What a consumer sees of one service, and how old that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final

from adsum.core.model import Endpoint

DEFAULT_CACHE_MAX_AGE: Final = 3600.0
"""Seconds; a kept view that is older is still used while no registry answers, and each error says so."""
CACHE_MAX_AGE_LIMIT: Final = 315_360_000.0
"""Seconds, ten years; a longer bound is refused as a slip."""


class ViewOrigin(StrEnum):
    """Where a view comes from: the registry, the disk (while the registry has not said anything yet), nowhere yet."""

    LIVE = "live"
    DISK = "disk"
    NONE = "none"


def _never() -> float:
    return inf


@dataclass(frozen=True, slots=True)
class View:
    """A service at one revision of one epoch; endpoints are ordered by id. It never changes, it only ages."""

    service: str
    endpoints: tuple[Endpoint, ...] = ()
    epoch: str = ""
    revision: int = 0
    origin: ViewOrigin = ViewOrigin.NONE
    fresh_at: float = -inf
    """The monotonic instant at which it was last known to be the newest."""
    _now: Callable[[], float] = field(default=_never, repr=False, compare=False)

    def age(self) -> float:
        """Seconds since this was last known to be the newest; infinite if nothing was ever known."""
        return max(0.0, self._now() - self.fresh_at) if self.origin is not ViewOrigin.NONE else inf
