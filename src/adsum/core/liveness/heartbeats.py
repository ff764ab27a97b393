"""The times that a registry and its consumers share: how soon silence is noticed, and how long it is waited for.

A consumer derives its times from the heartbeat that the registry states, and the registry derives how long it waits
for a silent consumer from the same heartbeat. Both ends use these functions, so that they can't disagree.
"""

from __future__ import annotations

from typing import Final

DEFAULT_HEARTBEAT: Final = 3.0
"""Seconds between two heartbeats of a watch, by default."""
MIN_HEARTBEAT: Final = 0.5
"""Seconds; a shorter heartbeat would cost a registry with many watches more than it brings."""
MAX_HEARTBEAT: Final = 3.0
"""Seconds; with a longer heartbeat a client would need more than 6 s to notice silence, and a drain would have to wait
for longer than `DEFAULT_DRAIN_WAIT` before a silent consumer counts as lost."""
MAX_FIRST_RETRY_DELAY: Final = 0.5
"""Seconds; the longest pause of a client between noticing silence, or the end of its watch, and its next attempt."""
CONNECT_MARGIN: Final = 1.0
"""Seconds that a client has to connect, to be shown the newest state, and to acknowledge it."""
DEFAULT_DRAIN_WAIT: Final = 8.0
"""Seconds that a registrar waits, by default, for consumers to acknowledge its drain: no less than `lost_after` of the
longest heartbeat, and less than the 10 s after which `docker stop` kills."""


def stale_after(heartbeat: float) -> float:
    """Seconds of silence after which a client opens another watch: two heartbeats."""
    return 2 * heartbeat


def lost_after(heartbeat: float) -> float:
    """Seconds without a word from a consumer after which it counts as lost: drains no longer wait for it.

    A client that lives and reaches a node has noticed the silence and acknowledged at another connection by then.
    """
    return stale_after(heartbeat) + MAX_FIRST_RETRY_DELAY + CONNECT_MARGIN
