"""What the nodes of one registry ask of one another: to renew what another keeps, and whether its consumers know."""

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
"""Nodes to which connections are kept; past it those of the one asked longest ago are closed."""


class Peers:
    """The other nodes, as `sharding` tells of them."""

    def __init__(
        self, sharding: Sharding, clock: Clock, rng: Random, lost_after: float = lost_after(DEFAULT_HEARTBEAT)
    ) -> None:
        """`lost_after`: seconds without a word after which a node that can't be asked is no longer waited for."""
        self._shares = sharding
        self._confirming = DrainConfirmation(clock, lost_after)
        self._rng = rng
        self._apis: dict[str, RegistryApi] = {}
        """By the ids of nodes: what is meant for one run is not for the next, though that is at the same address."""
        self._passing: dict[str, RenewalForwarder] = {}

    @property
    def id(self) -> str:
        """See `ports.Shares.id`."""
        return self._shares.id

    def keepers(self, service: str) -> Sequence[Peer]:
        """See `ports.Shares.keepers`."""
        return self._shares.keepers(service)

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Have whichever of them keeps the leases renew them; those that all who keep it call lost.

        Raises `KeeperUnavailable` if there is a lease whose keeper does not answer: who calls that renewed lets it
        lapse unnoticed when we are cut off from its keeper.
        """
        answers = await asyncio.gather(*(self._to(peer).renew(leases) for peer in peers))
        heard = [answer for answer in answers if answer is not None]
        unheard = {lease.service for lease in leases}.intersection(*(answer.not_kept for answer in heard))
        if unheard:
            names = ", ".join(sorted(peer.name for peer, answer in zip(peers, answers, strict=True) if answer is None))
            if names:
                raise KeeperUnavailable(f"{names} can't be asked to renew what it keeps; another node may reach it")
            raise KeeperUnavailable(f"nobody keeps {min(unheard)} just now, and so it can't be renewed")
        lost = dict.fromkeys(each for answer in heard for each in answer.lost)
        return [each for each in lost if all(each in said.lost or each.service in said.not_kept for said in heard)]

    async def wait_for_acknowledgements(
        self, query_here: AckQuery, service: str, revision: int, wait: float
    ) -> wire.AcknowledgementReport:
        """Which consumers, of all nodes, don't route by that revision of the service after `wait` seconds.

        A node that can't be asked stands for its consumers, and so does one that left not long ago: they may go on by
        what it showed them last.
        """
        return await self._confirming.wait_for_acknowledgements(query_here, self._neighbours, service, revision, wait)

    def _neighbours(self) -> list[QueriedPeer]:
        there = [QueriedPeer(peer, self._asking(peer)) for peer, _ in self._shares.peers()]
        return there + [QueriedPeer(peer, self._asking(peer), left) for peer, left in self._shares.departed_peers()]

    def _asking(self, peer: Peer) -> AckQuery:
        async def ask(
            service: str, revision: int, wait: float, about: Sequence[str], hints: ConsumerHints
        ) -> wire.AcknowledgementReport:
            return await self._api(peer).unacknowledged(
                service, revision, wait, consumers=about, acknowledged=hints.acknowledged, goodbyes=hints.goodbyes
            )

        return ask

    async def close(self) -> None:
        """Idempotent."""
        for id in list(self._apis):
            await self._leave(id)

    def _to(self, peer: Peer) -> RenewalForwarder:
        api = self._api(peer)
        passing = self._passing.get(peer.id)
        if passing is None:
            passing = self._passing[peer.id] = RenewalForwarder(f"{peer.name} at {peer.url}", api.renew)
        return passing

    def _api(self, peer: Peer) -> RegistryApi:
        api = self._apis.pop(peer.id, None)
        if api is None:
            api = RegistryApi([peer.url], rng=self._rng)
            api.headers[wire.FORWARDED_TO_HEADER] = peer.id
        self._apis[peer.id] = api
        if len(self._apis) > MAX_PEER_CONNECTIONS:
            asyncio.get_running_loop().create_task(self._leave(next(iter(self._apis))))
        return api

    async def _leave(self, id: str) -> None:
        """Close what there is to that node."""
        api, passing = self._apis.pop(id), self._passing.pop(id, None)
        if passing is not None:
            await passing.close()
        await api.close()
