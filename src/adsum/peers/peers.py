"""The other nodes of one registry: forwards renewals and joins to them, and queries their consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from adsum import wire
from adsum.consumers import AckQuery, ConsumerHints
from adsum.core.errors import KeeperUnavailable
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after
from adsum.core.nodes.sharding import Peer
from adsum.peers.drain_confirmation import DrainConfirmation, QueriedPeer
from adsum.peers.issuing_peers import ForwardedReply, IssuingPeers, NewCertificate
from adsum.peers.peer_clients import MAX_PEER_CONNECTIONS, PeerCertificates, PeerClients
from adsum.peers.renewal_forwarder import RenewalAnswer, RenewalForwarder
from adsum.ports import Clock, Sharding

SettleLeases = Callable[[list[wire.LostLease] | KeeperUnavailable], None]
"""Takes the leases that are lost, or why the renewals could not be forwarded. Returns at once."""


class Peers:
    """The other nodes of the registry, which `sharding` lists."""

    def __init__(
        self,
        sharding: Sharding,
        clock: Clock,
        rng: Random,
        lost_after: float = lost_after(DEFAULT_HEARTBEAT),
        *,
        certificates: PeerCertificates | None = None,
        node: str = "",
    ) -> None:
        """`lost_after`: seconds of silence after which drains no longer wait for a node that does not answer.

        `certificates` are those of a node that serves TLS: it calls the others over mutual TLS. `node` is its name.
        """
        self._sharding = sharding
        self._confirmation = DrainConfirmation(clock, lost_after)
        self._clients = PeerClients(rng, certificates)
        self._issuing = IssuingPeers(self._present, self._clients, rng, node)
        self._forwarders: dict[str, RenewalForwarder] = {}
        self._closing: set[asyncio.Task[None]] = set()
        """Forwarders that were replaced, and still cancel their requests."""

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
        loop = asyncio.get_running_loop()
        waits: list[asyncio.Future[RenewalAnswer | None]] = [loop.create_future() for _ in peers]
        for peer, wait in zip(peers, waits, strict=True):
            self._forwarder(peer).renew(leases, partial(_set_result, wait))
        return lost_leases(peers, leases, await asyncio.gather(*waits))

    def submit_renewals(self, peer: Peer, leases: Sequence[wire.LeaseBody], settle: SettleLeases) -> None:
        """Forwards renewals to one node as `renew` does, and calls `settle` once, now or later."""

        def take(answer: RenewalAnswer | None) -> None:
            try:
                lost = lost_leases((peer,), leases, (answer,))
            except KeeperUnavailable as error:
                settle(error)
            else:
                settle(lost)

        self._forwarder(peer).renew(leases, take)

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
            return await self._clients.api(peer).unacknowledged(
                service, revision, wait, consumers=ids, acknowledged=hints.acknowledged, goodbyes=hints.goodbyes
            )

        return query

    async def forward_to_issuer(self, path: str, body: bytes, authorization: str, address: str) -> ForwardedReply:
        """See `IssuingPeers.forward`."""
        return await self._issuing.forward(path, body, authorization, address)

    async def request_certificate(self, request: bytes, token: str, authority: bytes, hash: str) -> NewCertificate:
        """See `IssuingPeers.request_certificate`."""
        return await self._issuing.request_certificate(request, token, authority, hash)

    async def close(self) -> None:
        """Closes all connections. Idempotent."""
        forwarders, self._forwarders = self._forwarders, {}
        await asyncio.gather(*self._closing, *(forwarder.close() for forwarder in forwarders.values()))
        await self._clients.close()

    def _present(self) -> list[Peer]:
        return [peer for peer, _ in self._sharding.peers()]

    def _forwarder(self, peer: Peer) -> RenewalForwarder:
        forwarder = self._forwarders.pop(peer.id, None)
        if forwarder is None:

            async def send(leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
                return await self._clients.renew(peer, leases)

            forwarder = RenewalForwarder(f"{peer.name} at {peer.url}", send)
        self._forwarders[peer.id] = forwarder
        if len(self._forwarders) > MAX_PEER_CONNECTIONS:
            oldest = self._forwarders.pop(next(iter(self._forwarders)))
            closing = asyncio.get_running_loop().create_task(oldest.close(), name="adsum-close-forwarder")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return forwarder


def lost_leases(
    peers: Sequence[Peer], leases: Sequence[wire.LeaseBody], replies: Sequence[RenewalAnswer | None]
) -> list[wire.LostLease]:
    """Returns the leases that are lost at every node that keeps them, given the reply of each node.

    Raises `KeeperUnavailable` if the keeper of a lease does not answer.
    """
    answers = [reply for reply in replies if reply is not None]
    if len(answers) == 1 and not (answers[0].lost or answers[0].not_kept):
        return []
    unanswered = {lease.service for lease in leases}.intersection(*(answer.not_kept for answer in answers))
    if unanswered:
        names = ", ".join(sorted(peer.name for peer, reply in zip(peers, replies, strict=True) if reply is None))
        if names:
            raise KeeperUnavailable(f"{names} can't be asked to renew what it keeps; another node may reach it")
        raise KeeperUnavailable(f"no node keeps the leases of {min(unanswered)} at the moment; try again")
    lost = dict.fromkeys(lease for answer in answers for lease in answer.lost)
    return [
        lease for lease in lost if all(lease in answer.lost or lease.service in answer.not_kept for answer in answers)
    ]


def _set_result(wait: asyncio.Future[RenewalAnswer | None], answer: RenewalAnswer | None) -> None:
    if not wait.done():  # The client may have left.
        wait.set_result(answer)
