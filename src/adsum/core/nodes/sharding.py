"""Which node of a registry keeps which services: their leases, checks and overrides.

All instances of a service have one keeper, so that the guard sees a mass lapse whole. Services fall into `SHARDS`
shards, and nodes share those: each shard belongs to the node that rendezvous hashing chooses (Thaler and Ravishankar,
"Using name-based mappings to increase hit rates", 1998), so that when a node comes or goes, only its own shards move.
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
"""Services whose shard is remembered; that of others is computed again."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the registry. `id` is of one run of its process; `url` is where other nodes reach it."""

    id: str
    name: str
    url: str = ""


@lru_cache(MAX_CACHED_SHARDS)
def shard_of(service: str) -> int:
    """The shard of a service; the same on every node, for ever."""
    return crc32(service.encode()) % SHARDS


def shard_owner(shard: int, nodes: Collection[str]) -> str | None:
    """Which of the nodes, named by their ids, is to keep the shard; None: there is none."""
    return max(nodes, key=lambda node: (_score(shard, node), node), default=None)


@lru_cache(MAX_CACHED_SHARDS)
def _score(shard: int, node: str) -> bytes:
    return blake2b(f"{shard}/{node}".encode(), digest_size=8).digest()


class SingleNode:
    """Implements `ports.Shares` for the only node of a registry: it keeps everything."""

    kept_shards: Set[int] = ALL_SHARDS

    def __init__(self, name: str) -> None:
        self.id = name
        """Nobody passes anything on to it."""

    def advertise(self, url: str) -> None:
        """There is nobody to be told."""

    async def start(self) -> None:
        """It keeps everything from the start."""

    def keepers(self, service: str) -> Sequence[Peer]:
        return ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        return ()

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        return ()
