"""The view of one service at one revision, and its age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final

from adsum.core.model import Endpoint

DEFAULT_CACHE_MAX_AGE: Final = 3600.0
"""Seconds; an older cached view is still used while no registry answers, and every error states its age."""
CACHE_MAX_AGE_LIMIT: Final = 315_360_000.0
"""Seconds (ten years); a greater `cache_max_age` is refused as a mistake."""


class ViewOrigin(StrEnum):
    """The origin of a view: the registry, the disk (while no registry has answered yet), or none (no view yet)."""

    LIVE = "live"
    DISK = "disk"
    NONE = "none"


def _never() -> float:
    return inf


@dataclass(frozen=True, slots=True)
class View:
    """A service at one revision of one epoch, its endpoints ordered by id. Only its age changes."""

    service: str
    endpoints: tuple[Endpoint, ...] = ()
    epoch: str = ""
    revision: int = 0
    origin: ViewOrigin = ViewOrigin.NONE
    fresh_at: float = -inf
    """The monotonic time in seconds at which this was last known to be the newest view."""
    _now: Callable[[], float] = field(default=_never, repr=False, compare=False)

    def age(self) -> float:
        """Returns the seconds since this was last known to be the newest view; infinite if no view has come yet."""
        return max(0.0, self._now() - self.fresh_at) if self.origin is not ViewOrigin.NONE else inf
