"""Brief registrations: decided and committed like all others, and answered when the snapshot contains them."""

from __future__ import annotations

import logging

from adsum import wire
from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.catalog import decisions
from adsum.core.catalog.takeover import ProbeRequired
from adsum.core.errors import AdsumError
from adsum.core.model import Registration
from adsum.dialects.native.api.operation import MAX_BODY_BYTES
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders
from adsum.dialects.native.operations.lease_renewals import LeaseRenewals
from adsum.dialects.native.operations.recorded_decision import RecordedDecision
from adsum.dialects.native.ports import AddressCheck
from adsum.dialects.native.problems import problem_reply
from adsum.dialects.native.requests.api_request import (
    parameter_value,
    plain_address,
    recorded_caller,
    require_unique_keys,
)
from adsum.dialects.native.requests.body_memory import BodyMemory
from adsum.mounts import Reply
from adsum.ports import Clock, Observer
from adsum.registry import Registry

_NAME = "register"
"""The name of the operation, for metrics."""

_log = logging.getLogger("adsum.native")


class BriefRegistrations:
    """Registers instances. It leaves requests alone that it can't queue, and those that need a probe."""

    def __init__(
        self,
        registry: Registry,
        renewals: LeaseRenewals,
        access: AccessControl,
        observer: Observer,
        clock: Clock,
        *,
        check_address: AddressCheck,
        body_memory: BodyMemory,
    ) -> None:
        """`body_memory` counts the bodies of registrations that wait."""
        self.registry = registry
        self.renewals = renewals
        self.access = access
        self.observer = observer
        self.clock = clock
        self.body_memory = body_memory
        self._check_address = check_address

    def register(
        self, service: str, id: str, headers: PreparedHeaders, body: bytes, peer: str, began: float, reply: Reply
    ) -> bool:
        """Registers an instance, and calls `reply` once, later. Returns False, and does nothing, if it does not.

        The service and the id are as in the path, not validated. `began`: when the request began.
        """
        claimed, size = headers.claimed_actor, len(body)
        if claimed is None or not headers.is_json or size > MAX_BODY_BYTES or not self.registry.is_ready:
            return False
        peer = plain_address(peer)
        try:
            if service not in self.registry.snapshot.services:
                parameter_value("service", service, wire.Name)
            parameter_value("id", id, wire.Id)
            principal = headers.caller.identify()
            if not self.access.allows(principal, Action.REGISTER, service):
                return False
            content = wire.decode(body, wire.RegistrationBody)
            require_unique_keys(body)
            registration = content.to_registration(service, id, peer)
            self._check_address(registration.instance.address)
            self.body_memory.reserve(size)
        except AdsumError:
            return False
        caller = recorded_caller(principal, peer, claimed, self.clock.wall())
        decision = RecordedDecision(decisions.register(registration, caller, content.takeover))
        pending = _PendingRegistration(self, registration, decision, principal, peer, size, began, reply)
        try:
            self.registry.submit(decision, pending.settle)
        except AdsumError:
            self.body_memory.release(size)
            return False
        return True


class _PendingRegistration:
    """A registration in the queue of the registry."""

    __slots__ = ("_began", "_body_size", "_decision", "_parts", "_peer", "_principal", "_registration", "_reply")

    def __init__(
        self,
        parts: BriefRegistrations,
        registration: Registration,
        decision: RecordedDecision,
        principal: Principal,
        peer: str,
        body_size: int,
        began: float,
        reply: Reply,
    ) -> None:
        self._parts = parts
        self._registration = registration
        self._decision = decision
        self._principal = principal
        self._peer = peer
        self._body_size = body_size
        self._began = began
        self._reply = reply

    def settle(self, result: int | AdsumError) -> None:
        """Takes the result of the registry, and answers. Never raises: the other callers of a batch wait."""
        self._parts.body_memory.release(self._body_size)
        try:
            self._settle(result)
        except Exception:
            _log.exception("the registration of %s could not be answered", self._registration.key)

    def _settle(self, result: int | AdsumError) -> None:
        if isinstance(result, ProbeRequired):
            self._reply(None, b"")  # The application probes the process that has the id.
        elif isinstance(result, AdsumError):
            self._refuse(result)
        elif self._decision.has_changes or self._renew():
            status = 201 if self._decision.adds_instance else 200
            written = wire.WriteResult(self._parts.registry.snapshot.epoch, result, self._registration.ttl)
            self._answer(ApiReply(status, wire.encode(written)))
        else:
            self._reply(None, b"")  # The application has another node renew the lease.

    def _renew(self) -> bool:
        """Renews the lease of an instance that was registered already. Returns False if another node keeps it.

        Another process may have removed or taken over the instance since. The next renewal reports that.
        """
        key = self._registration.key
        lease = wire.LeaseBody(*key, self._registration.holder)
        return self._parts.renewals.renew_here([lease], self._principal) is not None

    def _refuse(self, error: AdsumError) -> None:
        self._parts.observer.refused(_NAME, error)
        self._parts.access.record_refusal(_NAME, error, Credentials(address=self._peer))
        self._answer(problem_reply(error))

    def _answer(self, response: ApiReply) -> None:
        took = self._parts.clock.now() - self._began
        self._reply(response.status, response.encode())
        self._parts.observer.answered(_NAME, response.status, took)
