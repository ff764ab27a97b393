"""How fast a peer may speak."""

from __future__ import annotations

from adsum.dialects.xds.bounds import BURST, PACE


class Pace:
    """`BURST` requests at once, then `PACE` a second. Time is monotonic seconds."""

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at = 0.0
        """When the burst would be whole again."""

    def pause(self, now: float) -> float:
        """A request came; how long to wait before hearing the next."""
        self._free_at = max(self._free_at, now) + 1 / PACE
        return max(0.0, self._free_at - now - BURST / PACE)
