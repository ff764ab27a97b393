"""The interfaces of the node that the native dialect uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from adsum import wire
from adsum.consumers import AckQuery, ConsumerHints
from adsum.core.model import Key, Listing, Outcome
from adsum.core.nodes.sharding import Peer
from adsum.peers.issuing_peers import ForwardedReply, NoIssuingNode
from adsum.peers.peers import SettleLeases

AddressCheck = Callable[[str], None]
"""Raises `Invalid`, with the field `address`, for an address that no instance may have."""

LatestOutcomes = Callable[[Key], Mapping[str, Outcome]]
"""Returns the last outcome of each check of an instance, by the name of the check."""


class LeaseRenewer(Protocol):
    """The keeper of this node: it keeps leases and runs checks."""

    def keeps(self, service: str) -> bool:
        """Returns whether this node keeps the leases of the service."""
        ...

    def now(self) -> float:
        """Returns the instant of renewals that are made together."""
        ...

    def renew(self, key: Key, holder: str = "", now: float | None = None) -> None:
        """Renews a lease for another ttl, from `now` if it is given. Raises `UnknownInstance` and `LeaseLost`."""
        ...

    async def is_reachable(self, listing: Listing) -> bool:
        """Returns whether the instance answers one probe, which is sent at once. Raises `Overloaded`."""
        ...


class OtherNodes(Protocol):
    """The other nodes of the registry."""

    @property
    def id(self) -> str:
        """The id of this run of this node, by which the other nodes address it."""
        ...

    def keepers(self, service: str) -> Sequence[Peer]:
        """Returns the other nodes that may keep the service, none if this node keeps it or no node does now."""
        ...

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Has these nodes renew the leases that they keep. Returns the leases that could not be renewed.

        Raises `KeeperUnavailable` if the keeper of a lease does not answer.
        """
        ...

    def submit_renewals(self, peer: Peer, leases: Sequence[wire.LeaseBody], settle: SettleLeases) -> None:
        """Has one node renew leases as `renew` does, and calls `settle` once, now or later."""
        ...

    async def wait_for_acknowledgements(
        self, query_here: AckQuery, service: str, revision: int, wait: float
    ) -> wire.AcknowledgementReport:
        """Waits until the consumers of all nodes have acknowledged a revision of a service, at most `wait` seconds.

        `query_here` queries this node. Returns the consumers that have not. If other nodes do not answer, it returns at
        most a second late.
        """
        ...

    async def forward_to_issuer(self, path: str, body: bytes, authorization: str, address: str) -> ForwardedReply:
        """Forwards a POST to a node that has the key of the registry's authority. Raises `NoIssuingNode`.

        `path` is below the base of the API, `authorization` the header of the caller, and `address` where it is.
        """
        ...


class NoOtherNodes:
    """The `OtherNodes` of a node that is alone."""

    id = ""

    def keepers(self, service: str) -> Sequence[Peer]:
        return ()

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        return []

    def submit_renewals(self, peer: Peer, leases: Sequence[wire.LeaseBody], settle: SettleLeases) -> None:
        settle([])

    async def wait_for_acknowledgements(
        self, query_here: AckQuery, service: str, revision: int, wait: float
    ) -> wire.AcknowledgementReport:
        return await query_here(service, revision, wait, (), ConsumerHints())

    async def forward_to_issuer(self, path: str, body: bytes, authorization: str, address: str) -> ForwardedReply:
        raise NoIssuingNode("this node knows no other one")
