"""The client of the other nodes of one registry: forwards renewals to them, and queries their consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

from adsum import wire
from adsum.client.native.api import RegistryApi
from adsum.consumers import AckQuery, ConsumerHints
from adsum.core.errors import KeeperUnavailable
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after
from adsum.core.nodes.sharding import Peer
from adsum.peers.drain_confirmation import DrainConfirmation, QueriedPeer
from adsum.peers.renewal_forwarder import RenewalForwarder
from adsum.ports import Clock, Sharding

MAX_PEER_CONNECTIONS: Final = 64
"""Nodes to which connections are kept open. Past it those of the node used longest ago are closed."""


class Peers:
    """The other nodes of the registry, which `sharding` lists."""

    def __init__(
        self, sharding: Sharding, clock: Clock, rng: Random, lost_after: float = lost_after(DEFAULT_HEARTBEAT)
    ) -> None:
        """`lost_after`: seconds of silence after which drains no longer wait for a node that does not answer."""
        self._sharding = sharding
        self._confirmation = DrainConfirmation(clock, lost_after)
        self._rng = rng
        self._apis: dict[str, RegistryApi] = {}
        """The clients by the ids of nodes. The next run of a node has another id, though it has the same address."""
        self._forwarders: dict[str, RenewalForwarder] = {}

    @property
    def id(self) -> str:
        """See `ports.Sharding.id`."""
        return self._sharding.id

    def keepers(self, service: str) -> Sequence[Peer]:
        """See `ports.Sharding.keepers`."""
        return self._sharding.keepers(service)

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Forwards renewals to all of `peers`. Returns the leases that are lost at every node that keeps them.

        Raises `KeeperUnavailable` if the keeper of a lease does not answer. If the lease were reported as renewed, it
        would lapse unnoticed while this node is cut off from the keeper.
        """
        replies = await asyncio.gather(*(self._forwarder(peer).renew(leases) for peer in peers))
        answers = [reply for reply in replies if reply is not None]
        unanswered = {lease.service for lease in leases}.intersection(*(answer.not_kept for answer in answers))
        if unanswered:
            names = ", ".join(sorted(peer.name for peer, reply in zip(peers, replies, strict=True) if reply is None))
            if names:
                raise KeeperUnavailable(f"{names} can't be asked to renew what it keeps; another node may reach it")
            raise KeeperUnavailable(f"no node keeps the leases of {min(unanswered)} at the moment; try again")
        lost = dict.fromkeys(lease for answer in answers for lease in answer.lost)
        return [
            lease
            for lease in lost
            if all(lease in answer.lost or lease.service in answer.not_kept for answer in answers)
        ]

    async def wait_for_acknowledgements(
        self, query_here: AckQuery, service: str, revision: int, wait: float
    ) -> wire.AcknowledgementReport:
        """Waits until the consumers of all nodes route by that revision of the service, or for `wait` seconds.

        Returns those that do not. A node that does not answer, or that left recently, is listed in place of its
        consumers, because they may go on calling by the last view that it sent them.
        """
        return await self._confirmation.wait_for_acknowledgements(
            query_here, self._queried_peers, service, revision, wait
        )

    def _queried_peers(self) -> list[QueriedPeer]:
        present = [QueriedPeer(peer, self._query(peer)) for peer, _ in self._sharding.peers()]
        departed = self._sharding.departed_peers()
        return present + [QueriedPeer(peer, self._query(peer), left_ago) for peer, left_ago in departed]

    def _query(self, peer: Peer) -> AckQuery:
        async def query(
            service: str, revision: int, wait: float, ids: Sequence[str], hints: ConsumerHints
        ) -> wire.AcknowledgementReport:
            return await self._api(peer).unacknowledged(
                service, revision, wait, consumers=ids, acknowledged=hints.acknowledged, goodbyes=hints.goodbyes
            )

        return query

    async def close(self) -> None:
        """Closes all connections. Idempotent."""
        for id in list(self._apis):
            await self._close_connections(id)

    def _forwarder(self, peer: Peer) -> RenewalForwarder:
        api = self._api(peer)
        forwarder = self._forwarders.get(peer.id)
        if forwarder is None:
            forwarder = self._forwarders[peer.id] = RenewalForwarder(f"{peer.name} at {peer.url}", api.renew)
        return forwarder

    def _api(self, peer: Peer) -> RegistryApi:
        api = self._apis.pop(peer.id, None)
        if api is None:
            api = RegistryApi([peer.url], rng=self._rng)
            api.headers[wire.FORWARDED_TO_HEADER] = peer.id
        self._apis[peer.id] = api
        if len(self._apis) > MAX_PEER_CONNECTIONS:
            asyncio.get_running_loop().create_task(self._close_connections(next(iter(self._apis))))
        return api

    async def _close_connections(self, id: str) -> None:
        """Closes the forwarder and the client of one node."""
        api, forwarder = self._apis.pop(id), self._forwarders.pop(id, None)
        if forwarder is not None:
            await forwarder.close()
        await api.close()
