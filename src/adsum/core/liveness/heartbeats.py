"""The times that a registry and its consumers share, all derived from the heartbeat of a watch.

The consumer derives when it takes a silent registry for dead. The registry derives when it takes a silent consumer for
lost. Both use these functions, so that they can't disagree.
"""

from __future__ import annotations

from typing import Final

DEFAULT_HEARTBEAT: Final = 3.0
"""Seconds between two heartbeats of a watch, by default."""
MIN_HEARTBEAT: Final = 0.5
"""Seconds. A shorter heartbeat costs a registry with many watches too much."""
MAX_HEARTBEAT: Final = 3.0
"""Seconds. With a longer heartbeat a client would need more than 6 s to notice silence, and a silent consumer would
count as lost only after `DEFAULT_DRAIN_WAIT`."""
MAX_FIRST_RETRY_DELAY: Final = 0.5
"""Seconds from when a client notices silence, or the end of its watch, to its next attempt, at most."""
CONNECT_MARGIN: Final = 1.0
"""Seconds that a client has to connect, to receive the newest state and to acknowledge it."""
DEFAULT_DRAIN_WAIT: Final = 8.0
"""Seconds that a registrar waits for consumers to acknowledge its drain, by default. It is at least `lost_after` of the
longest heartbeat, and less than the 10 s after which `docker stop` kills."""


def stale_after(heartbeat: float) -> float:
    """Returns the seconds of silence after which a client opens another watch: two heartbeats."""
    return 2 * heartbeat


def lost_after(heartbeat: float) -> float:
    """Returns the seconds of silence after which a consumer counts as lost, so that drains no longer wait for it.

    By then a client that lives and reaches a node has noticed the silence and acknowledged over another connection.
    """
    return stale_after(heartbeat) + MAX_FIRST_RETRY_DELAY + CONNECT_MARGIN
