"""The renewal of leases: those that this node keeps, and those of other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from adsum import wire
from adsum.core.access.ownership import may_change
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import Right
from adsum.core.errors import KeeperUnavailable, LeaseLost, UnknownInstance
from adsum.core.model import Key
from adsum.core.nodes.sharding import Peer
from adsum.dialects.native.ports import LeaseRenewer, OtherNodes
from adsum.peers.peers import SettleLeases
from adsum.registry import Registry


class LeaseRenewals:
    """Renews leases for callers, as far as their rights go."""

    def __init__(self, registry: Registry, keeper: LeaseRenewer, others: OtherNodes) -> None:
        self._registry = registry
        self._keeper = keeper
        self._others = others

    async def renew(self, leases: Sequence[wire.LeaseBody], principal: Principal) -> list[wire.LostLease]:
        """Renews the leases that this node keeps, and has other nodes renew theirs. Returns the lost leases.

        A lease that the principal may not renew is lost to it. It then registers again, and gets the reason. Raises
        `KeeperUnavailable` if no node can renew one of the leases. The others are renewed nevertheless.
        """
        kept, forwarded, without_keeper = list[wire.LeaseBody](), dict[tuple[Peer, ...], list[wire.LeaseBody]](), ""
        leases, denied = self._split_by_right(leases, principal)
        for lease in leases:
            if self._keeper.keeps(lease.service):
                kept.append(lease)
            elif peers := tuple(self._others.keepers(lease.service)):
                forwarded.setdefault(peers, []).append(lease)
            else:
                without_keeper = lease.service
        lost = self.renew_kept(kept) + denied
        if forwarded:
            renewals = (self._others.renew(peers, batch) for peers, batch in forwarded.items())
            for lost_there in await asyncio.gather(*renewals):
                lost += lost_there
        if without_keeper:
            raise KeeperUnavailable(f"no node keeps the leases of {without_keeper} at the moment; try again")
        return lost

    def renew_here(self, leases: Sequence[wire.LeaseBody], principal: Principal) -> list[wire.LostLease] | None:
        """Renews leases as `renew` does. Returns None, and renews nothing, if other nodes keep one of them."""
        allowed, denied = self._split_by_right(leases, principal)
        if not all(self._keeper.keeps(lease.service) for lease in allowed):
            return None
        return self.renew_kept(allowed) + denied

    def submit(self, leases: Sequence[wire.LeaseBody], principal: Principal, settle: SettleLeases) -> bool:
        """Renews leases as `renew` does, and calls `settle` once, now or later.

        Returns False, and does nothing, if the node that keeps one of the leases is not certain.
        """
        kept, forwarded = list[wire.LeaseBody](), dict[Peer, list[wire.LeaseBody]]()
        allowed, denied = self._split_by_right(leases, principal)
        for lease in allowed:
            if self._keeper.keeps(lease.service):
                kept.append(lease)
                continue
            peers = self._others.keepers(lease.service)
            if len(peers) != 1:
                return False
            forwarded.setdefault(peers[0], []).append(lease)
        if not forwarded:
            settle(self.renew_kept(kept) + denied)
            return True
        if len(forwarded) > 1 or kept or denied:
            settle = _JoinedRenewals(self.renew_kept(kept) + denied, len(forwarded), settle).add
        for peer, batch in forwarded.items():
            self._others.submit_renewals(peer, batch, settle)
        return True

    def renew_kept(self, leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Renews leases that this node keeps, whoever the caller is. Returns the lost ones."""
        now = self._keeper.now()
        reasons = ((lease, self._renew_one(lease, now)) for lease in leases)
        return [wire.LostLease(lease.service, lease.id, reason) for lease, reason in reasons if reason is not None]

    def renew_forwarded(self, leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        """Renews leases for another node, which has judged the rights of its callers, and returns the response."""
        kept = [lease for lease in leases if self._keeper.keeps(lease.service)]
        lost = self.renew_kept(kept)
        not_kept = {lease.service for lease in leases}.difference(lease.service for lease in kept)
        snapshot = self._registry.snapshot
        renewed = len(kept) - len(lost)
        return wire.RenewalResult(snapshot.epoch, snapshot.revision, renewed, lost, sorted(not_kept))

    def _split_by_right(
        self, leases: Sequence[wire.LeaseBody], principal: Principal
    ) -> tuple[Sequence[wire.LeaseBody], list[wire.LostLease]]:
        """Returns the leases that the principal may renew, and the others as lost ones."""
        if principal.scopes.patterns(Right.OPERATE).is_all:
            return leases, []
        allowed, denied = list[wire.LeaseBody](), list[wire.LostLease]()
        find, scopes = self._registry.snapshot.find, principal.scopes
        for lease in leases:
            listed = find(Key(lease.service, lease.id))
            if not scopes.can(Right.WRITE, lease.service):
                denied.append(wire.LostLease(lease.service, lease.id, "unknown"))
            elif listed is not None and not may_change(principal, listed):
                denied.append(wire.LostLease(lease.service, lease.id, "superseded"))
            else:
                allowed.append(lease)
        return allowed, denied

    def _renew_one(self, lease: wire.LeaseBody, now: float) -> Literal["unknown", "superseded"] | None:
        """Renews a lease. Returns why it is lost, None if it is renewed."""
        try:
            self._keeper.renew(Key(lease.service, lease.id), lease.holder, now)
        except UnknownInstance:
            self._registry.watches.consumers.note_restart()  # Consumers may know the instance from before a restart.
            return "unknown"
        except LeaseLost:
            return "superseded"
        return None


class _JoinedRenewals:
    """Renewals for one caller at several nodes: one answer when all of them have answered."""

    __slots__ = ("_error", "_lost", "_missing", "_settle")

    def __init__(self, lost_here: list[wire.LostLease], count: int, settle: SettleLeases) -> None:
        """`count`: the number of other nodes that answer."""
        self._lost = lost_here
        self._missing = count
        self._settle = settle
        self._error: KeeperUnavailable | None = None

    def add(self, answer: list[wire.LostLease] | KeeperUnavailable) -> None:
        """Takes the answer of one node. An error of one is the answer to the caller, though others have renewed."""
        if isinstance(answer, KeeperUnavailable):
            self._error = self._error or answer
        else:
            self._lost += answer
        self._missing -= 1
        if not self._missing:
            self._settle(self._error or self._lost)
