"""The nodes that share one etcd, and the shards that each of them keeps.

    PREFIX/cluster/nodes/NODE       a live node, under its lease
    PREFIX/cluster/keepers/SHARD    the node that keeps the shard, under that node's lease
    PREFIX/cluster/turns/NODE       written when a node requests a turn to write, under its lease: see `write_turns`

Every shard belongs to one of the live nodes. That node claims it by a write that succeeds only if no node keeps the
shard. A node first releases shards that belong to another node by now. If a node dies, or does not reach etcd for
`SESSION_TTL` seconds, its lease ends and all its keys are deleted. A node that is not sure of its lease keeps nothing.
A node claims no shards before `start`: other nodes would leave shards to it that it can't keep yet.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import aclosing, suppress
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from adsum.core.backoff import Backoff
from adsum.core.errors import StoreUnavailable
from adsum.core.nodes.advertised_urls import UrlProblems
from adsum.core.nodes.sharding import SHARDS, Peer, shard_of, shard_owner
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError
from adsum.etcd.session import EtcdSession
from adsum.etcd.values import Condition, CreatedAt, Delete, KeyValue, Put, Unchanged
from adsum.etcd.watch import ResyncRequired, WatchInterrupted, WatchProgress, watch
from adsum.ports import Clock

SESSION_TTL: Final = 5
"""Seconds without a keep-alive after which etcd ends a node's session, and other nodes count it as dead."""
JOIN_TIMEOUT: Final = 10.0
"""Seconds within which etcd must grant a session to a node that starts. Then the node ends with an error."""
ADDRESS_WARNING_DELAY: Final = 2.0 * SESSION_TTL
"""Seconds after which a conflict of the nodes' URLs is reported. By then no dead node is among them."""
REBALANCE_INTERVAL: Final = 1.0
"""Seconds after which shards are claimed and released again, even if no node or shard has changed."""
MAX_SHARDS_PER_TRANSACTION: Final = 64
"""Shards that one transaction claims or releases."""
MIN_RELOAD_PAUSE, MAX_RELOAD_PAUSE = 0.1, 2.0
"""Seconds before the nodes are read anew. The pause grows from the first bound to the second."""
DEPARTED_NODE_RETENTION: Final = 90.0
"""Seconds for which drains may wait for a departed node, whose consumers may not have noticed that it left."""
MAX_DEPARTED_NODES: Final = 64
"""Departed nodes that are remembered. Past it the one that left first is forgotten."""

_NO_SHARDS: Final[Set[int]] = frozenset()

_log = logging.getLogger("adsum.store")


class NodeRecord(Struct, frozen=True):
    """The value of a node's key: its name and the URL that it advertises."""

    name: str
    url: str


_NODE: Final = msgspec.json.Decoder(NodeRecord)


class EtcdMembership:
    """Implements `ports.Sharding` over etcd."""

    def __init__(self, prefix: bytes, name: str, clock: Clock, rng: Random) -> None:
        self._cluster_prefix = prefix + b"cluster/"
        self._nodes_prefix = self._cluster_prefix + b"nodes/"
        self._keepers_prefix = self._cluster_prefix + b"keepers/"
        self._turns_prefix = self._cluster_prefix + b"turns/"
        self._self = Peer(secrets.token_hex(8), name)
        self._clock = clock
        self._rng = rng
        self._session: EtcdSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._joined = asyncio.Event()
        self._loaded = asyncio.Event()
        """Set once the nodes that were there before this one are known."""
        self._created = 0
        self._live: dict[str, Peer] = {}
        """Node id → live node, this one included."""
        self._departed: dict[str, tuple[Peer, float]] = {}
        """Node id → departed node and the time at which it left, in that order."""
        self._keepers: dict[int, str] = {}
        """Shard → id of the node that keeps it."""
        self._url_problems = UrlProblems(ADDRESS_WARNING_DELAY)
        self._kept: Set[int] = _NO_SHARDS
        self.on_turn_requested: Callable[[str], None] = lambda _: None
        """Called with the id of each node that requests a turn, this one included."""

    def advertise(self, url: str) -> None:
        self._self = Peer(self._self.id, self._self.name, url)

    @property
    def id(self) -> str:
        return self._self.id

    @property
    def kept_shards(self) -> Set[int]:
        if self._kept and (self._session is None or not self._session.is_held):
            self._kept = _NO_SHARDS
        return self._kept

    def keepers(self, service: str) -> Sequence[Peer]:
        if self._session is None or not self._session.is_held:
            # Other nodes take over the shards of this node, and what this node knows of them may be outdated.
            return [peer for peer in self._live.values() if peer.id != self._self.id]
        keeper = self._keepers.get(shard_of(service))
        return [self._live[keeper]] if keeper != self._self.id and keeper in self._live else ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        counts = dict.fromkeys(self._live, 0)
        for keeper in self._keepers.values():
            if keeper in counts:
                counts[keeper] += 1
        others = (peer for peer in self._live.values() if peer.id != self._self.id)
        return [(peer, counts[peer.id]) for peer in sorted(others, key=lambda peer: (peer.name, peer.id))]

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        now = self._clock.now()
        return [(peer, now - at) for peer, at in self._departed.values() if now - at < DEPARTED_NODE_RETENTION]

    def condition(self) -> Mapping[str, str]:
        """Returns the conflicts of the nodes' URLs, for people; empty if there is none."""
        return {"nodes": "; ".join(self._url_problems.confirmed)} if self._url_problems.confirmed else {}

    @property
    def trouble(self) -> str:
        """The reason why this node has no session, and so neither keeps shards nor writes; "" while it has one."""
        return self._session.trouble if self._session is not None else ""

    def seconds_without_session(self) -> float:
        """Returns the seconds for which this node has had no session; 0.0 while it has one."""
        return self._session.seconds_without_lease() if self._session is not None else 0.0

    @property
    def session_condition(self) -> Condition | None:
        """The condition of writes that this node's session has not ended; None if it has no session."""
        if self._session is None or not self._session.is_held:
            return None
        return CreatedAt(self._key, self._created)

    def attach(self, etcd: EtcdClient) -> None:
        """Sets the client to use. Called once, when the store is open."""
        self._etcd = etcd

    async def start(self) -> None:
        self._session = EtcdSession(self._etcd, SESSION_TTL, self._on_grant, self._clock, self._rng)
        self._session.start()
        self._tasks = [
            asyncio.create_task(self._follow(), name="adsum-etcd-nodes"),
            asyncio.create_task(self._rebalance(), name="adsum-etcd-rebalance"),
        ]
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self._joined.wait()
                # Of two nodes that start at the same time, at least one knows the other from here on.
                await self._loaded.wait()
        except TimeoutError:
            raise StoreUnavailable(f"etcd grants this node no session within {JOIN_TIMEOUT:g} s") from None

    async def request_turn(self) -> None:
        """Requests that other nodes leave the next write to this one. If etcd does not take it, nothing happens."""
        session = self._session
        if session is not None and session.is_held:
            with suppress(EtcdError):
                await self._etcd.put(self._turns_prefix + self._self.id.encode(), b"", session.lease)

    async def close(self) -> None:
        """Leaves the cluster, so that other nodes take over the shards at once; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept = _NO_SHARDS
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _key(self) -> bytes:
        return self._nodes_prefix + self._self.id.encode()

    async def _on_grant(self, lease: int) -> None:
        """Writes this node's key under a new lease; all keys under the lease before are gone. Raises `EtcdError`."""
        record = msgspec.json.encode(NodeRecord(self._self.name, self._self.url))
        await self._etcd.commit((), [Delete(self._key)])
        self._created = await self._etcd.put(self._key, record, lease)
        self._joined.set()
        self._changed.set()

    async def _follow(self) -> None:
        backoff = Backoff(MIN_RELOAD_PAUSE, MAX_RELOAD_PAUSE)
        while True:
            try:
                await self._watch(await self._load(), backoff)
            except EtcdError as error:
                _log.debug("nodes can't be followed: %s", error)
            except Exception:
                _log.exception("nodes can't be followed")
            await self._clock.sleep(backoff.next(self._rng))

    async def _load(self) -> int:
        """Reads all nodes and shards. Returns the revision to watch from. Raises `EtcdError`."""
        result = await self._etcd.read_all(self._cluster_prefix)
        before, self._live, self._keepers = self._live, {}, {}
        for key_value in result.key_values:
            self._apply(key_value.key, key_value)
        for id in before.keys() - self._live.keys():
            self._add_departed(before[id])
        self._changed.set()
        return result.header.revision + 1

    async def _watch(self, start_revision: int, backoff: Backoff) -> None:
        """Follows nodes and shards until the watch is interrupted, and raises `EtcdError` then.

        Everything must be loaded anew afterwards: an etcd that was restored or wiped has other revisions.
        """
        async with aclosing(
            watch(self._etcd, self._cluster_prefix, start_revision, self._clock, self._rng)
        ) as watch_events:
            async for watch_event in watch_events:
                if isinstance(watch_event, ResyncRequired | WatchInterrupted):
                    raise _MustReload(watch_event.reason)
                if not isinstance(watch_event, WatchProgress):
                    for event in watch_event.events:
                        if event.key.startswith(self._turns_prefix):
                            self._apply_request(event.key, event.key_value)
                        else:
                            self._apply(event.key, event.key_value)
                            self._changed.set()
                backoff.reset()

    def _apply(self, key: bytes, key_value: KeyValue | None) -> None:
        if key.startswith(self._nodes_prefix):
            self._apply_node(key.removeprefix(self._nodes_prefix).decode(errors="replace"), key_value)
        elif (number := key.removeprefix(self._keepers_prefix)).isdigit() and int(number) < SHARDS:
            if key_value is None:
                self._keepers.pop(int(number), None)
            else:
                self._keepers[int(number)] = key_value.value.decode(errors="replace")

    def _apply_request(self, key: bytes, key_value: KeyValue | None) -> None:
        if key_value is not None:
            self.on_turn_requested(key.removeprefix(self._turns_prefix).decode(errors="replace"))

    def _apply_node(self, id: str, key_value: KeyValue | None) -> None:
        before = self._live.pop(id, None)
        if key_value is not None:
            try:
                record = _NODE.decode(key_value.value)
            except msgspec.DecodeError as error:
                _log.error("node %s in etcd can't be read and is left out: %s", id, error)
                return
            self._live[id] = Peer(id, record.name, record.url)
            if id == self._self.id:
                self._loaded.set()
            self._departed.pop(id, None)
        elif before is not None:
            self._add_departed(before)
        if id != self._self.id and (before is None) is not (key_value is None):
            _log.info("node %s %s", (before or self._live[id]).name, "left" if key_value is None else "joined")

    def _add_departed(self, peer: Peer) -> None:
        """Adds a node that left to the departed ones, so that drains wait for its consumers for a while."""
        if peer.id != self._self.id:
            self._departed.pop(peer.id, None)
            self._departed[peer.id] = peer, self._clock.now()
            if len(self._departed) > MAX_DEPARTED_NODES:
                del self._departed[next(iter(self._departed))]

    async def _rebalance(self) -> None:
        """Claims and releases shards whenever the nodes or shards change, for ever."""
        while True:
            try:
                async with asyncio.timeout(REBALANCE_INTERVAL):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            for problem in self._url_problems.update(self._live.values(), self._clock.now()):
                _log.warning("some renewals and drains will be refused: %s", problem)
            try:
                await self._claim_and_release()
            except EtcdError as error:
                _log.debug("shards can't be claimed or released: %s", error)
            except Exception:
                _log.exception("shards can't be claimed or released")

    async def _claim_and_release(self) -> None:
        """Keeps the claimed shards that belong to this node, releases the other claimed ones, and claims missing ones.

        Raises `EtcdError`.
        """
        session = self._session
        if session is None or not session.is_held or self._self.id not in self._live:
            self._set_kept(_NO_SHARDS)
            if session is not None and session.is_held and await self._etcd.get(self._key) is None:
                await self._on_grant(session.lease)  # Another program deleted the key in etcd.
            return
        own = {shard for shard in range(SHARDS) if shard_owner(shard, self._live) == self._self.id}
        claimed = {shard for shard, keeper in self._keepers.items() if keeper == self._self.id}
        self._set_kept(claimed & own)  # Before another node can claim what is released below.
        for chunk in _chunks(sorted(claimed - own)):
            await self._release(chunk)
        for chunk in _chunks(sorted(own - self._keepers.keys())):
            await self._claim(chunk, session.lease)

    def _set_kept(self, shards: Set[int]) -> None:
        if shards != self._kept:
            self._kept = frozenset(shards)

    async def _release(self, shards: Sequence[int]) -> None:
        keys = [self._shard_key(shard) for shard in shards]
        await self._etcd.commit([CreatedAt(self._key, self._created)], [Delete(key) for key in keys])

    async def _claim(self, shards: Sequence[int], lease: int) -> None:
        """Claims all of the shards, or none if another node keeps one of them. The watch reports the result."""
        keys = [self._shard_key(shard) for shard in shards]
        conditions: list[Condition] = [CreatedAt(self._key, self._created), *(Unchanged(key, 0) for key in keys)]
        puts = [Put(key, self._self.id.encode(), lease) for key in keys]
        await self._etcd.commit(conditions, puts)

    def _shard_key(self, shard: int) -> bytes:
        return self._keepers_prefix + str(shard).encode()


class _MustReload(EtcdError):
    """The watch is interrupted, and everything must be loaded anew."""


def _chunks(shards: Sequence[int]) -> Iterable[Sequence[int]]:
    """Splits shards into chunks that fit into a transaction."""
    starts = range(0, len(shards), MAX_SHARDS_PER_TRANSACTION)
    return (shards[start : start + MAX_SHARDS_PER_TRANSACTION] for start in starts)
