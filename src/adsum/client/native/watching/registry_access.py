"""The state that the watches of one client share."""

from __future__ import annotations

from random import Random
from typing import Final

from adsum.client.native.api import RegistryApi
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.ports import Clock

MAX_STORE_AGE: Final = 6.0
"""Seconds; if a node has not reached its store for so long, another node is tried. Even one heartbeat later, the other
nodes do not yet count a node as lost that is cut off from them and from the store."""
MIN_FAILOVER_INTERVAL: Final = 60.0
"""Seconds between two such tries: if no node reaches the store, another node is no better."""


class RegistryAccess:
    """The nodes of the registry, their heartbeat, and the time of the next failover."""

    def __init__(self, api: RegistryApi, clock: Clock, rng: Random) -> None:
        self.api = api
        self.clock = clock
        self.rng = rng
        self.heartbeat = DEFAULT_HEARTBEAT
        """Seconds between two heartbeats, as a node stated them last."""
        self._next_failover_at = clock.now()

    def begin_failover(self, node: str, store_age: float) -> bool:
        """Returns whether to try another node than this one, which last reached its store `store_age` seconds ago."""
        now = self.clock.now()
        if len(self.api.nodes) < 2 or store_age < MAX_STORE_AGE or now < self._next_failover_at:
            return False
        self._next_failover_at = now + MIN_FAILOVER_INTERVAL
        self.api.nodes.mark_failed(node)
        return True
