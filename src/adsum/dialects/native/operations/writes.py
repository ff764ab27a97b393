"""Registration and deregistration of instances, and the renewal of leases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from adsum import wire
from adsum.core.access.ownership import may_change, require_change
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import Right
from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.takeover import ProbeRequired, Takeover
from adsum.core.errors import KeeperUnavailable, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Key, Registration
from adsum.core.nodes.sharding import Peer
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.operations.recorded_decision import RecordedDecision
from adsum.dialects.native.ports import AddressCheck, LeaseRenewer, OtherNodes
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.ports import Clock
from adsum.registry import Registry


class WriteOperations:
    """The operations that register and deregister instances, forget services, and renew leases."""

    def __init__(
        self, registry: Registry, keeper: LeaseRenewer, others: OtherNodes, check_address: AddressCheck, clock: Clock
    ) -> None:
        self._registry = registry
        self._keeper = keeper
        self._others = others
        self._check_address = check_address
        self._clock = clock

    async def register(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.RegistrationBody)
        registration = body.to_registration(*request.key, request.peer)
        self._check_address(registration.instance.address)
        decision, revision = await self._list(registration, body.takeover, request.caller(self._clock.wall()))
        if not decision.has_changes:
            await self.renew_registered([wire.LeaseBody(*registration.key, registration.holder)], request.principal)
        return self._written(revision, 201 if decision.adds_instance else 200, ttl=registration.ttl)

    async def _list(
        self, registration: Registration, takeover: Takeover, caller: Caller
    ) -> tuple[RecordedDecision, int]:
        """List the instance. A process that has its id is probed first, once. Raises `RegistrationConflict`."""
        decision = RecordedDecision(decisions.register(registration, caller, takeover))
        try:
            return decision, await self._registry.write(decision)
        except ProbeRequired as conflict:
            if await self._keeper.is_reachable(conflict.listing):
                raise RegistrationConflict(str(conflict)) from None
            unreachable = {conflict.listing.registration.identity}
        decision = RecordedDecision(decisions.register(registration, caller, takeover, unreachable))
        try:
            return decision, await self._registry.write(decision)
        except ProbeRequired as conflict:  # Yet another process got the id during the probe.
            raise RegistrationConflict(str(conflict)) from None

    async def deregister(self, request: ApiRequest) -> ApiReply:
        reason, holder = request.query.get("reason", ""), request.query.get("holder", "")
        caller = request.caller(self._clock.wall())
        return self._written(await self._registry.write(decisions.deregister(request.key, holder, reason, caller)))

    async def forget(self, request: ApiRequest) -> ApiReply:
        service, reason = request.path["service"], request.query.get("reason", "")
        caller = request.caller(self._clock.wall())
        return self._written(await self._registry.write(decisions.forget(service, reason, caller)))

    async def renew(self, request: ApiRequest) -> ApiReply:
        key = request.key
        lease = wire.LeaseBody(*key, request.query.get("holder", ""))
        listed = self._registry.snapshot.find(key)
        if listed is not None:
            require_change(request.principal, listed)
        for lost in await self._renew([lease], request.principal):
            raise UnknownInstance(*key) if lost.reason == "unknown" else LeaseLost(*key)
        snapshot = self._registry.snapshot
        listing = snapshot.find(key)
        return self._written(snapshot.revision, ttl=listing.registration.ttl if listing is not None else None)

    async def renew_many(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.RenewBody, reject_repeated_keys=False)
        if request.is_forwarded_to(self._others.id):
            leases = [lease for lease in body.leases if self._keeper.keeps(lease.service)]
            lost = self._renew_kept(leases)
            not_kept = sorted({lease.service for lease in body.leases} - {lease.service for lease in leases})
        else:
            leases, lost, not_kept = body.leases, await self._renew(body.leases, request.principal), []
        snapshot = self._registry.snapshot
        result = wire.RenewalResult(snapshot.epoch, snapshot.revision, len(leases) - len(lost), lost, not_kept)
        return ApiReply(200, wire.encode(result))

    async def renew_registered(self, leases: Sequence[wire.LeaseBody], principal: Principal) -> None:
        """Renews the leases of instances that were registered again without a change. Raises `KeeperUnavailable`."""
        # Another process may have removed or taken over an instance since. The next renewal reports that.
        await self._renew(leases, principal)

    async def _renew(self, leases: Sequence[wire.LeaseBody], principal: Principal) -> list[wire.LostLease]:
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
        lost = self._renew_kept(kept) + denied
        if forwarded:
            renewals = (self._others.renew(peers, batch) for peers, batch in forwarded.items())
            for lost_there in await asyncio.gather(*renewals):
                lost += lost_there
        if without_keeper:
            raise KeeperUnavailable(f"no node keeps the leases of {without_keeper} at the moment; try again")
        return lost

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

    def _renew_kept(self, leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Renews leases that this node keeps. Returns the lost ones."""
        reasons = ((lease, self._renew_one(lease)) for lease in leases)
        return [wire.LostLease(lease.service, lease.id, reason) for lease, reason in reasons if reason is not None]

    def _renew_one(self, lease: wire.LeaseBody) -> Literal["unknown", "superseded"] | None:
        """Renews a lease. Returns why it is lost, None if it is renewed."""
        try:
            self._keeper.renew(Key(lease.service, lease.id), lease.holder)
        except UnknownInstance:
            self._registry.watches.consumers.note_restart()  # Consumers may know the instance from before a restart.
            return "unknown"
        except LeaseLost:
            return "superseded"
        return None

    def _written(self, revision: int, status: int = 200, *, ttl: float | None = None) -> ApiReply:
        return ApiReply(status, wire.encode(wire.WriteResult(self._registry.snapshot.epoch, revision, ttl)))
