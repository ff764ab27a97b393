"""Sharding: which node of a registry keeps which services, with their leases, checks and overrides.

All instances of a service have one keeper, so that its guard sees a whole mass lapse. Services are divided into
`SHARDS` shards. Rendezvous hashing assigns each shard to a node (Thaler and Ravishankar, "Using name-based mappings to
increase hit rates", 1998), so that only its own shards move when a node comes or goes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from zlib import crc32

SHARDS: Final = 256
ALL_SHARDS: Final = frozenset(range(SHARDS))
MAX_CACHED_SHARDS: Final = 65_536
"""Services whose shard is cached. Past it the shards of those used longest ago are computed again."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the registry. `id` identifies one run of its process. Other nodes reach it at `url`."""

    id: str
    name: str
    url: str = ""


@lru_cache(MAX_CACHED_SHARDS)
def shard_of(service: str) -> int:
    """Returns the shard of a service. It is the same on every node and in every version."""
    return crc32(service.encode()) % SHARDS


def shard_owner(shard: int, nodes: Collection[str]) -> str | None:
    """Returns the id of the node that is to keep the shard; None if there are no nodes."""
    return max(nodes, key=lambda node: (_score(shard, node), node), default=None)


@lru_cache(MAX_CACHED_SHARDS)
def _score(shard: int, node: str) -> bytes:
    return blake2b(f"{shard}/{node}".encode(), digest_size=8).digest()


class SingleNode:
    """Implements `ports.Sharding` for the only node of a registry, which keeps all services."""

    kept_shards: Set[int] = ALL_SHARDS

    def __init__(self, name: str) -> None:
        self.id = name

    def advertise(self, url: str) -> None:
        """Does nothing: there are no other nodes."""

    async def start(self) -> None:
        """Does nothing: it keeps all services from the beginning."""

    def keepers(self, service: str) -> Sequence[Peer]:
        return ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        return ()

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        return ()
