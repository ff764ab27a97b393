"""Registration and deregistration of instances, and the renewal of leases."""

from __future__ import annotations

from adsum import wire
from adsum.core.access.ownership import require_change
from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.takeover import ProbeRequired, Takeover
from adsum.core.errors import LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Registration
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.operations.lease_renewals import LeaseRenewals
from adsum.dialects.native.operations.recorded_decision import RecordedDecision
from adsum.dialects.native.ports import AddressCheck, LeaseRenewer, OtherNodes
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.ports import Clock
from adsum.registry import Registry


class WriteOperations:
    """The operations that register and deregister instances, forget services, and renew leases."""

    def __init__(
        self,
        registry: Registry,
        keeper: LeaseRenewer,
        others: OtherNodes,
        renewals: LeaseRenewals,
        check_address: AddressCheck,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._keeper = keeper
        self._others = others
        self._renewals = renewals
        self._check_address = check_address
        self._clock = clock

    async def register(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.RegistrationBody)
        registration = body.to_registration(*request.key, request.peer)
        self._check_address(registration.instance.address)
        decision, revision = await self._list(registration, body.takeover, request.caller(self._clock.wall()))
        if not decision.has_changes:
            # Another process may have removed or taken over the instance since. The next renewal reports that.
            await self._renewals.renew([wire.LeaseBody(*registration.key, registration.holder)], request.principal)
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
        for lost in await self._renewals.renew([lease], request.principal):
            raise UnknownInstance(*key) if lost.reason == "unknown" else LeaseLost(*key)
        snapshot = self._registry.snapshot
        listing = snapshot.find(key)
        return self._written(snapshot.revision, ttl=listing.registration.ttl if listing is not None else None)

    async def renew_many(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.RenewBody, reject_repeated_keys=False)
        if request.is_forwarded_to(self._others.id):
            return ApiReply(200, wire.encode(self._renewals.renew_forwarded(body.leases)))
        lost = await self._renewals.renew(body.leases, request.principal)
        snapshot = self._registry.snapshot
        renewed = len(body.leases) - len(lost)
        return ApiReply(200, wire.encode(wire.RenewalResult(snapshot.epoch, snapshot.revision, renewed, lost, [])))

    def _written(self, revision: int, status: int = 200, *, ttl: float | None = None) -> ApiReply:
        return ApiReply(status, wire.encode(wire.WriteResult(self._registry.snapshot.epoch, revision, ttl)))
