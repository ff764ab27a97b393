"""The registration of many instances in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from adsum import wire
from adsum.access.credentials import Credentials
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.takeover import ProbeRequired
from adsum.core.errors import (
    AdsumError,
    Invalid,
    KeeperUnavailable,
    Overloaded,
    RegistrationConflict,
    StoreUnavailable,
)
from adsum.core.model import Registration
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.operations.lease_renewals import LeaseRenewals
from adsum.dialects.native.operations.recorded_decision import RecordedDecision
from adsum.dialects.native.ports import AddressCheck
from adsum.dialects.native.problems import MalformedRequest, problem_document, retry_after
from adsum.dialects.native.requests.api_request import ApiRequest, json_errors, require_unique_keys
from adsum.ports import Clock, Observer
from adsum.registry import Registry

MAX_ITEMS_PER_TURN: Final = 50
"""Registrations that are decoded before other tasks run. Each takes some 50 µs."""
TRANSIENT: Final = (StoreUnavailable, Overloaded, KeeperUnavailable)
"""Errors of the node. If they hit every registration, the client does better to try another node."""

_FIELD: Final = b'"registrations"'


class _Item:
    """One registration of a request, and what became of it."""

    __slots__ = ("decision", "error", "registration", "revision")

    def __init__(self) -> None:
        self.registration: Registration | None = None
        self.decision: RecordedDecision | None = None
        """None: the registration is refused, and `error` says why."""
        self.error: AdsumError | None = None
        self.revision = 0
        """The revision from which on the instance is listed."""

    def decide(self, view: CatalogView) -> list[Change]:
        """The decision, of an item that is not refused."""
        return self.decision(view) if self.decision is not None else []

    @property
    def is_unchanged(self) -> bool:
        """True if the instance was listed in the same way before."""
        return self.error is None and self.decision is not None and not self.decision.has_changes

    def answer(self) -> wire.RegistrationAnswer:
        if self.error is not None:
            problem = problem_document(self.error)
            return wire.RegistrationAnswer(problem.status, problem=problem, retry_after=retry_after(self.error))
        status = 201 if self.decision is not None and self.decision.adds_instance else 200
        ttl = self.registration.ttl if self.registration is not None else None
        return wire.RegistrationAnswer(status, self.revision, ttl)


class BulkRegistration:
    """The operation that registers many instances. They are decided together, and committed as one batch if it fits."""

    def __init__(
        self,
        registry: Registry,
        renewals: LeaseRenewals,
        check_address: AddressCheck,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._registry = registry
        self._renewals = renewals
        self._check_address = check_address
        self._clock = clock
        self._observer = observer

    async def register_many(self, request: ApiRequest) -> ApiReply:
        """Registers the instances, and answers each. Raises a transient error if it hit all of them."""
        texts = await _split(await request.json_body())
        items, caller, allowed = [_Item() for _ in texts], request.caller(self._clock.wall()), set[str]()
        for number, (item, text) in enumerate(zip(items, texts, strict=True)):
            self._prepare(item, number, text, request, caller, allowed)
            if (number + 1) % MAX_ITEMS_PER_TURN == 0:
                await asyncio.sleep(0)
        await self._commit([item for item in items if item.decision is not None])
        await self._renew([item for item in items if item.is_unchanged], request.principal)
        errors = [item.error for item in items if item.error is not None]
        if errors and len(errors) == len(items) and all(isinstance(error, TRANSIENT) for error in errors):
            raise errors[0]
        for error in errors:
            self._observer.refused(request.operation.name, error)
            request.access.record_refusal(request.operation.name, error, Credentials(address=request.peer))
        snapshot = self._registry.snapshot
        answers = [item.answer() for item in items]
        return ApiReply(
            200,
            wire.encode(wire.RegistrationResult(snapshot.epoch, snapshot.revision, len(items) - len(errors), answers)),
        )

    def _prepare(
        self, item: _Item, number: int, text: bytes, request: ApiRequest, caller: Caller, allowed: set[str]
    ) -> None:
        """Decodes a registration and checks the right to it. Every error becomes that of the item.

        `allowed`: the services that the caller may register, as far as the request was checked.
        """
        try:
            body = wire.decode_registration(text)
            require_unique_keys(text)
            if body.service not in allowed:
                request.require(Action.REGISTER, (body.service,))
                allowed.add(body.service)
            item.registration = registration = body.register(caller.peer)
            self._check_address(registration.instance.address)
        except AdsumError as error:
            item.error = _located(error, f"registrations[{number}]")
        else:
            item.decision = RecordedDecision(decisions.register(registration, caller, body.takeover))

    async def _commit(self, items: Sequence[_Item]) -> None:
        """Writes the registrations of all items at once. Returns when each has a revision or an error."""
        done = asyncio.get_running_loop().create_future()
        waiting = len(items)

        def settle(item: _Item, result: int | AdsumError) -> None:
            nonlocal waiting
            if isinstance(result, int):
                item.revision = result
            else:
                item.error = _without_probe(result)
            waiting -= 1
            if not waiting and not done.done():
                done.set_result(None)

        for item in items:
            try:
                self._registry.submit(item.decide, partial(settle, item), done.done)
            except AdsumError as error:
                settle(item, error)
        if items:
            await done

    async def _renew(self, items: Sequence[_Item], principal: Principal) -> None:
        """Renews the leases of instances that were registered again without a change."""
        registrations = [item.registration for item in items if item.registration is not None]
        leases = [wire.LeaseBody(*registration.key, registration.holder) for registration in registrations]
        if not leases:
            return
        try:
            # Another process may have removed or taken over an instance since. The next renewal reports that.
            await self._renewals.renew(leases, principal)
        except KeeperUnavailable as error:
            for item in items:
                item.error = error


async def _split(body: bytes) -> list[bytes]:
    """Returns the registrations in a body, each as JSON. Raises `Invalid` and `MalformedRequest`."""
    with json_errors():
        texts = wire.split_registrations(body)
    if body.count(_FIELD) != 1:  # The list may be there twice, of which the decoder takes the last one.
        await asyncio.to_thread(require_unique_keys, body)
    return texts


def _located(error: AdsumError, item: str) -> AdsumError:
    """Returns an error whose field is the path from the beginning of the body. `item` is that of the registration."""
    if isinstance(error, Invalid):
        return error.prefixed(item) if error.field else Invalid(item, error.problem)
    if isinstance(error, MalformedRequest):
        return MalformedRequest(f"{item}.{error.field}", str(error))
    return error


def _without_probe(error: AdsumError) -> AdsumError:
    """Returns the error of a registration, which says so if a probe might have allowed it."""
    if isinstance(error, ProbeRequired):
        return RegistrationConflict(f"{error}; or register it by itself: the registry probes that process first")
    return error
