"""Whether a gateway still hears its registry. Pure: every instant is an argument."""

from __future__ import annotations

from typing import Final

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after

CONTACT_POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at Envoy's connection to the registry, give or take a tenth."""
LOST_AFTER: Final = lost_after(DEFAULT_HEARTBEAT)
"""Seconds without a registry after which a gateway says that it is on its own; its registry's drains no longer wait for
it from then on."""


class RegistryContact:
    """What is known of one gateway's connection to its registry, whichever Envoy has it."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._received = 0
        self.is_lost = False
        """Whether no registry has been heard for `LOST_AFTER`."""

    def update(self, now: float, *, connected: bool, received: int, refused_at: float) -> bool:
        """Take what is so now; whether `is_lost` has changed.

        `connected`: whether Envoy has a stream of a registry node. `received`: how many bytes came from registry nodes;
        one that hangs sends none, while a live one answers pings. `refused_at`: when the registry last ended a stream
        with a reason: Envoy opens streams again and again then, and none of them says anything.
        """
        spoke, self._received = received != self._received, received
        if connected and spoke and now - refused_at >= LOST_AFTER:
            self._heard_at = now
        before, self.is_lost = self.is_lost, now - self._heard_at >= LOST_AFTER
        return self.is_lost is not before
