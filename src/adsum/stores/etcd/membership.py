"""Nodes that share one etcd, and what each of them keeps.

    PREFIX/cluster/nodes/NODE       a node that lives, under its lease
    PREFIX/cluster/keepers/SHARD    which node keeps the shard, under that node's lease

A shard that nobody keeps is claimed, under the condition that nobody has claimed it yet, by the node to which it
belongs; one that belongs to somebody else by now is let go first. A node that dies, or that etcd has not heard of for
`SESSION_TTL` seconds, loses all it kept at once: its lease ends, and its keys with it. A node that is not sure of its own lease
keeps nothing, and neither does one that has not begun: others would leave to it what nobody looks after meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import aclosing
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
"""Seconds after which a node that etcd hears nothing of counts as dead."""
BEGIN_TIMEOUT: Final = 10.0
"""Seconds within which etcd must grant a session to a node that begins; then it ends, saying so."""
ADDRESS_WARNING_DELAY: Final = 2.0 * SESSION_TTL
"""Seconds after which what can't be right about the nodes' addresses is told: by then no dead one is among them."""
REBALANCE_INTERVAL: Final = 1.0
"""Seconds between two looks at what is to be claimed or let go, when nothing happens."""
MAX_SHARDS_PER_TRANSACTION: Final = 64
"""Shards that one transaction claims or lets go."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Bounds of the pause before reading everything anew, in seconds."""

DEPARTED_NODE_RETENTION: Final = 90.0
"""Seconds for which a node that left is remembered, since its consumers may not have noticed: longer than anybody waits
for them, and names them."""
MAX_DEPARTED_NODES: Final = 64
"""How many nodes that left are remembered; past it the one that left first is forgotten."""

_NOBODY: Final[Set[int]] = frozenset()

_log = logging.getLogger("adsum.store")


class NodeRecord(Struct, frozen=True):
    """What a node says of itself."""

    name: str
    url: str


_NODE: Final = msgspec.json.Decoder(NodeRecord)


class EtcdMembership:
    """Implements `ports.Shares`."""

    def __init__(self, prefix: bytes, name: str, clock: Clock, rng: Random) -> None:
        self._cluster = prefix + b"cluster/"
        self._nodes = self._cluster + b"nodes/"
        self._keepers = self._cluster + b"keepers/"
        self._self = Peer(secrets.token_hex(8), name)
        self._clock = clock
        self._rng = rng
        self._session: EtcdSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._work = asyncio.Event()
        self._joined = asyncio.Event()
        self._created = 0
        self._known: dict[str, Peer] = {}
        self._left: dict[str, tuple[Peer, float]] = {}
        """Nodes that left, and when, in that order."""
        self._owners: dict[int, str] = {}
        self._doubts = UrlProblems(ADDRESS_WARNING_DELAY)
        self._kept: Set[int] = _NOBODY

    def advertise(self, url: str) -> None:
        self._self = Peer(self._self.id, self._self.name, url)

    @property
    def id(self) -> str:
        return self._self.id

    @property
    def kept_shards(self) -> Set[int]:
        if self._kept and (self._session is None or not self._session.is_held):
            self._kept = _NOBODY
        return self._kept

    def keepers(self, service: str) -> Sequence[Peer]:
        if self._session is None or not self._session.is_held:
            # Whatever was ours is another's by now, or soon; and what we know of the others is old.
            return [peer for peer in self._known.values() if peer.id != self._self.id]
        owner = self._owners.get(shard_of(service))
        return [self._known[owner]] if owner != self._self.id and owner in self._known else ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        shares = dict.fromkeys(self._known, 0)
        for owner in self._owners.values():
            if owner in shares:
                shares[owner] += 1
        others = (peer for peer in self._known.values() if peer.id != self._self.id)
        return [(peer, shares[peer.id]) for peer in sorted(others, key=lambda peer: (peer.name, peer.id))]

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        now = self._clock.now()
        return [(peer, now - at) for peer, at in self._left.values() if now - at < DEPARTED_NODE_RETENTION]

    def condition(self) -> Mapping[str, str]:
        """What there is to tell people of the nodes: what can't be right about where they are."""
        return {"nodes": "; ".join(self._doubts.confirmed)} if self._doubts.confirmed else {}

    @property
    def trouble(self) -> str:
        """Why we have no session, and so neither keep nor write; "" while we have one."""
        return self._session.trouble if self._session is not None else ""

    def seconds_without_session(self) -> float:
        """Seconds for which we have had none; 0.0 while we have one."""
        return self._session.seconds_without_lease() if self._session is not None else 0.0

    @property
    def session_condition(self) -> Condition | None:
        """On which we may write: that our session has not ended. None: there is none just now."""
        if self._session is None or not self._session.is_held:
            return None
        return CreatedAt(self._key, self._created)

    def attach(self, etcd: EtcdClient) -> None:
        """Over which connection; said when the store is open."""
        self._etcd = etcd

    async def start(self) -> None:
        self._session = EtcdSession(self._etcd, SESSION_TTL, self._granted, self._clock, self._rng)
        self._session.start()
        self._tasks = [
            asyncio.create_task(self._follow(), name="adsum-etcd-nodes"),
            asyncio.create_task(self._share(), name="adsum-etcd-share"),
        ]
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT):
                await self._joined.wait()
        except TimeoutError:
            raise StoreUnavailable(f"etcd grants this node no session within {BEGIN_TIMEOUT:g} s") from None

    async def close(self) -> None:
        """Leave, so that others adopt at once what we kept; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept = _NOBODY
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _key(self) -> bytes:
        return self._nodes + self._self.id.encode()

    async def _granted(self, lease: int) -> None:
        """A session begins, and whatever hung on the one before is over. Raises `EtcdError`."""
        record = msgspec.json.encode(NodeRecord(self._self.name, self._self.url))
        await self._etcd.commit((), [Delete(self._key)])
        self._created = await self._etcd.put(self._key, record, lease)
        self._joined.set()
        self._work.set()

    async def _follow(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await self._watch(await self._load(), backoff)
            except EtcdError as error:
                _log.debug("nodes can't be followed: %s", error)
            except Exception:
                _log.exception("nodes can't be followed")
            await self._clock.sleep(backoff.next(self._rng))

    async def _load(self) -> int:
        found = await self._etcd.read_all(self._cluster)
        before, self._known, self._owners = self._known, {}, {}
        for each in found.key_values:
            self._take(each.key, each)
        for id in before.keys() - self._known.keys():
            self._remember(before[id])
        self._work.set()
        return found.header.revision + 1

    async def _watch(self, since: int, backoff: Backoff) -> None:
        """Until the connection is lost; then everything is to be loaded anew. Raises `EtcdError`."""
        async with aclosing(watch(self._etcd, self._cluster, since, self._clock, self._rng)) as told:
            async for each in told:
                if isinstance(each, ResyncRequired | WatchInterrupted):
                    # An etcd that was restored or wiped meanwhile knows other revisions.
                    raise _Again(each.reason)
                if not isinstance(each, WatchProgress):
                    for event in each.events:
                        self._take(event.key, event.key_value)
                    self._work.set()
                backoff.reset()

    def _take(self, key: bytes, now: KeyValue | None) -> None:
        if key.startswith(self._nodes):
            self._take_node(key.removeprefix(self._nodes).decode(errors="replace"), now)
        elif (number := key.removeprefix(self._keepers)).isdigit() and int(number) < SHARDS:
            if now is None:
                self._owners.pop(int(number), None)
            else:
                self._owners[int(number)] = now.value.decode(errors="replace")

    def _take_node(self, id: str, now: KeyValue | None) -> None:
        before = self._known.pop(id, None)
        if now is not None:
            try:
                said = _NODE.decode(now.value)
            except msgspec.DecodeError as error:
                _log.error("node %s in etcd can't be read and is left out: %s", id, error)
                return
            self._known[id] = Peer(id, said.name, said.url)
            self._left.pop(id, None)
        elif before is not None:
            self._remember(before)
        if id != self._self.id and (before is None) is not (now is None):
            _log.info("node %s %s", (before or self._known[id]).name, "left" if now is None else "is here")

    def _remember(self, peer: Peer) -> None:
        """It left: drains wait for its consumers for a while."""
        if peer.id != self._self.id:
            self._left.pop(peer.id, None)
            self._left[peer.id] = peer, self._clock.now()
            if len(self._left) > MAX_DEPARTED_NODES:
                del self._left[next(iter(self._left))]

    async def _share(self) -> None:
        """Claim what belongs to us, and let go of what does not, whenever something changed."""
        while True:
            try:
                async with asyncio.timeout(REBALANCE_INTERVAL):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            for each in self._doubts.update(self._known.values(), self._clock.now()):
                _log.warning("some renewals and drains will be refused: %s", each)
            try:
                await self._settle()
            except EtcdError as error:
                _log.debug("shares can't be settled: %s", error)
            except Exception:
                _log.exception("shares can't be settled")

    async def _settle(self) -> None:
        """Keep what is ours by etcd's word and by right; make what is ours by right ours. Raises `EtcdError`."""
        session = self._session
        if session is None or not session.is_held or self._self.id not in self._known:
            self._keep(_NOBODY)
            if session is not None and session.is_held and await self._etcd.get(self._key) is None:
                await self._granted(session.lease)  # Somebody deleted it in etcd.
            return
        belongs = {shard for shard in range(SHARDS) if shard_owner(shard, self._known) == self._self.id}
        mine = {shard for shard, owner in self._owners.items() if owner == self._self.id}
        self._keep(mine & belongs)  # Before another node can have what we let go.
        for some in _chunks(sorted(mine - belongs)):
            await self._let_go(some)
        for some in _chunks(sorted(belongs - self._owners.keys())):
            await self._claim(some, session.lease)

    def _keep(self, shards: Set[int]) -> None:
        if shards != self._kept:
            self._kept = frozenset(shards)

    async def _let_go(self, shards: Sequence[int]) -> None:
        keys = [self._shard_key(shard) for shard in shards]
        await self._etcd.commit([CreatedAt(self._key, self._created)], [Delete(key) for key in keys])

    async def _claim(self, shards: Sequence[int], lease: int) -> None:
        """All of them, or, if somebody has one of them, none: then the watch will say so."""
        keys = [self._shard_key(shard) for shard in shards]
        when: list[Condition] = [CreatedAt(self._key, self._created), *(Unchanged(key, 0) for key in keys)]
        puts = [Put(key, self._self.id.encode(), lease) for key in keys]
        await self._etcd.commit(when, puts)

    def _shard_key(self, shard: int) -> bytes:
        return self._keepers + str(shard).encode()


class _Again(EtcdError):
    """Everything is to be loaded anew."""


def _chunks(shards: Sequence[int]) -> Iterable[Sequence[int]]:
    return (
        shards[start : start + MAX_SHARDS_PER_TRANSACTION]
        for start in range(0, len(shards), MAX_SHARDS_PER_TRANSACTION)
    )
