"""What the nodes of one registry ask of one another: to renew what another keeps, and whether its consumers know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random
from typing import Final

from adsum import wire
from adsum.client.api import Api
from adsum.core.errors import AdsumError, KeeperUnavailable
from adsum.core.shares import Peer
from adsum.peers.passing import Passing
from adsum.ports import Clock, Shares
from adsum.watches import RETURN

LATE: Final = 1.0
"""Seconds by which a node may answer later than it was told to wait for its consumers."""
MAX_PEERS: Final = 64
"""Nodes to which connections are kept; past it those of the one asked longest ago are closed."""

_log = logging.getLogger("adsum.peers")


class Peers:
    """The other nodes, as `shares` tells of them."""

    def __init__(self, shares: Shares, clock: Clock, rng: Random) -> None:
        self._shares = shares
        self._clock = clock
        self._rng = rng
        self._apis: dict[str, Api] = {}
        """By the ids of nodes: what is meant for one run is not for the next, though that is at the same address."""
        self._passing: dict[str, Passing] = {}

    @property
    def id(self) -> str:
        """See `ports.Shares.id`."""
        return self._shares.id

    def keepers(self, service: str) -> Sequence[Peer]:
        """See `ports.Shares.keepers`."""
        return self._shares.keepers(service)

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.Lost]:
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

    async def unaware(self, service: str, revision: int, wait: float) -> int:
        """How many consumers of other nodes don't route by that revision of the service after `wait` seconds.

        A node that can't be asked counts as one: its consumers may go on by what it told them last.
        """
        asking = (self._unaware(peer, service, revision, wait) for peer, _ in self._shares.peers())
        return sum(await asyncio.gather(*asking))

    async def _unaware(self, peer: Peer, service: str, revision: int, wait: float) -> int:
        deadline = self._clock.now() + wait
        while True:
            left = max(0.0, deadline - self._clock.now())
            try:
                async with asyncio.timeout(left + LATE):
                    return (await self._api(peer).unaware(service, revision, left)).unaware
            except (AdsumError, TimeoutError) as error:
                _log.debug("%s does not say who knows of %s: %s", peer.name, service, error)
            if left <= 0:
                return 1
            if peer not in dict(self._shares.peers()):
                # It died: its consumers are told by another node as soon as they are back.
                await self._clock.sleep(min(RETURN, left))
                return int(left < RETURN)
            await self._clock.sleep(min(0.5, left))

    async def close(self) -> None:
        """Idempotent."""
        for id in list(self._apis):
            await self._leave(id)

    def _to(self, peer: Peer) -> Passing:
        api = self._api(peer)
        passing = self._passing.get(peer.id)
        if passing is None:
            passing = self._passing[peer.id] = Passing(f"{peer.name} at {peer.url}", api.renew)
        return passing

    def _api(self, peer: Peer) -> Api:
        api = self._apis.pop(peer.id, None)
        if api is None:
            api = Api([peer.url], rng=self._rng)
            api.headers[wire.PASSED_ON_HEADER] = peer.id
        self._apis[peer.id] = api
        if len(self._apis) > MAX_PEERS:
            asyncio.get_running_loop().create_task(self._leave(next(iter(self._apis))))
        return api

    async def _leave(self, id: str) -> None:
        """Close what there is to that node."""
        api, passing = self._apis.pop(id), self._passing.pop(id, None)
        if passing is not None:
            await passing.close()
        await api.close()
