"""Decides whether a gateway is still in contact with its registry. Pure: instants are arguments."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after

CONTACT_POLL_INTERVAL: Final = 1.0
"""Seconds between two polls of Envoy's connection to the registry, with a jitter of 10 %."""
LOST_AFTER: Final = lost_after(DEFAULT_HEARTBEAT)
"""Seconds without contact after which the registry counts as lost. From then on, the registry's drains no longer wait
for this gateway."""


class ContactProblem(StrEnum):
    """The reason why a gateway has no contact with its registry."""

    LOST = "lost"
    """Anything but the others: no node answers, or the gateway does not trust it."""
    REFUSED = "refused"
    """The registry does not accept the gateway's token or certificate any more, or it may not read services."""
    EXPIRED = "expired"
    """The gateway's certificate has expired."""


def contact_problem(*, is_lost: bool, is_refused: bool, has_expired: bool) -> ContactProblem | None:
    """Returns the problem to report; None while there is contact."""
    if not is_lost:
        return None
    if is_refused:
        return ContactProblem.REFUSED
    return ContactProblem.EXPIRED if has_expired else ContactProblem.LOST


class RegistryContact:
    """The state of one gateway's contact with its registry, across all its Envoys."""

    def __init__(self, now: float) -> None:
        self._contact_at = now
        self._received = 0
        self.is_lost = False
        """True once there was no contact for `LOST_AFTER`."""

    def update(self, now: float, *, connected: bool, received: int, refused_at: float) -> bool:
        """Takes the state at `now`, and returns whether `is_lost` has changed.

        `connected`: whether Envoy has a stream to a registry node. `received`: how many bytes came from registry nodes
        so far; a live node answers pings, a hung one sends nothing. `refused_at`: when the registry last ended a stream
        with a reason; Envoy then opens streams again and again, which is no contact.
        """
        has_new_bytes, self._received = received != self._received, received
        if connected and has_new_bytes and now - refused_at >= LOST_AFTER:
            self._contact_at = now
        was_lost, self.is_lost = self.is_lost, now - self._contact_at >= LOST_AFTER
        return self.is_lost is not was_lost
