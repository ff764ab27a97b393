"""Registers one instance in the background, and registers it again whenever the registry loses it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from random import Random
from typing import Final

from msgspec.structs import replace

from adsum.client.errors import (
    NotAllowed,
    NotAuthenticated,
    ProtocolViolation,
    RegistryRefused,
    RegistryUnavailable,
)
from adsum.client.registration.instance_address import InstanceAddress
from adsum.client.registration.registrar_state import MOVES, DrainResult, RegistrarEvent, RegistrarState
from adsum.client.registration.renewals import Renewals
from adsum.client.sources.source import Source
from adsum.core.backoff import Backoff
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import AdsumError, Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Instance, Registration
from adsum.ports import Clock
from adsum.wire import LeaseBody, OverrideBody, RegistrationBody, WriteResult

MIN_REGISTER_PAUSE, MAX_REGISTER_PAUSE = 0.5, 5.0
"""Seconds, bounds of the pause before registering again when no registry answers or another process has the id."""
REFUSED_PAUSE: Final = 60.0
"""Seconds before registering again when the registry refuses a registration that it had accepted before."""

_log = logging.getLogger(__name__)


class RegistrationLoop:
    """The registration of one instance in the registry, from `start` to `end`. Implements `renewals.LeaseOwner`."""

    def __init__(
        self,
        registration: Registration,
        source: Source,
        renewals: Renewals,
        *,
        address: str | None,
        take_over: bool,
        clock: Clock,
        rng: Random,
    ) -> None:
        """See `Registrar`."""
        self.state = RegistrarState.IDLE
        self.instance: Instance | None = None
        """The instance as it was declared; None before its address is known."""
        self.conflict = ""
        """A sentence about the live process that has the id or the place; "" if there is none."""
        self.denial = ""
        """A sentence: the reason why this program may not register; "" if it may."""
        self.refusal: AdsumError | None = None
        """The error by which the registry refused the latest registration."""
        self.first_answer = asyncio.Event()
        """Set once the registry has accepted or refused the registration, or listed another process."""
        self.draining_reason: str | None = None
        """The reason for draining; with one, the instance is declared draining whenever it was registered again."""
        self._registration = registration
        self._address = InstanceAddress(address, source)
        self._source = source
        self._renewals = renewals
        self._clock = clock
        self._rng = rng
        self._epoch = ""
        self._ttl = registration.ttl
        self._takeover = Takeover.FORCE if take_over else Takeover.USUAL
        """The right of the next registration to take the id from other processes. Once this instance was listed it has
        none, so that two processes never alternate."""
        self._task: asyncio.Task[None] | None = None
        self._no_request = asyncio.Event()
        """Clear while a registration is under way, which the catalog may have accepted already."""
        self._no_request.set()

    @property
    def key(self) -> tuple[str, str]:
        """The service and the id."""
        return self._registration.instance.service, self._registration.instance.id

    @property
    def name(self) -> str:
        """The name in logs, SERVICE/ID."""
        return "/".join(self.key)

    @property
    def holder(self) -> str:
        return self._registration.holder

    @property
    def lease(self) -> LeaseBody:
        """The lease to renew."""
        return LeaseBody(*self.key, self.holder)

    @property
    def ttl(self) -> float | None:
        """Seconds within which the lease must be renewed; None: the instance has no lease."""
        return self._ttl

    @property
    def epoch(self) -> str:
        """The epoch in which the instance was registered; "" before that."""
        return self._epoch

    def start(self) -> bool:
        """Begins to register in the background. Returns False if it was started or ended before."""
        if not self._move(RegistrarEvent.STARTED):
            return False
        self._register_soon()
        return True

    async def end(self) -> None:
        """Stops registering and renewing, without deregistering. Idempotent."""
        self._renewals.remove(self)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._move(RegistrarEvent.STOPPED)

    async def wait_for_answer(self, wait: float) -> None:
        """Waits until no registration is under way, at the latest for `wait` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._no_request.wait()

    def on_lease_lost(self, reason: str) -> None:
        """Registers again, unless a later registrar of this program has taken the id. Called by `Renewals`."""
        self._renewals.remove(self)
        if reason == "replaced":
            if self._move(RegistrarEvent.SUPERSEDED):
                _log.info("%s: a later registration of this program replaces this one", self.name)
        elif self._move(RegistrarEvent.TAKEN if reason == "superseded" else RegistrarEvent.FORGOTTEN):
            if self.state is RegistrarState.REGISTERING:
                _log.warning("%s: the registry no longer lists this instance; registering again", self.name)
            self._register_soon()

    def on_lease_renewed(self) -> None:
        """Registers again if this host's address has changed. Called by `Renewals`."""
        if self._address.is_outdated and self._move(RegistrarEvent.ADDRESS_CHANGED):
            _log.warning("%s: the address of this host has changed; registering at the new one", self.name)
            self._renewals.remove(self)
            self._register_soon()

    async def declare_draining(self, wait: float) -> DrainResult:
        """Declares the instance draining, and waits up to `wait` seconds for consumers to acknowledge that.

        Raises what `Source.override` and `Source.register` raise.
        """
        ends = self._clock.now() + wait
        try:
            written = await self._override(wait)
        except UnknownInstance:
            # The registry lost its state, but consumers still show the instance: list it again, so that they receive
            # the drain.
            registration = await self._with_address()
            await self._source.register(*self.key, RegistrationBody.from_registration(registration, Takeover.NEVER))
            wait = max(0.0, ends - self._clock.now())
            written = await self._override(wait)
        if wait <= 0:
            return DrainResult(done=False, reason="the drain did not wait for consumers")
        return DrainResult.from_answer(written)

    def _move(self, event: RegistrarEvent) -> bool:
        """Follows the table of states. Returns whether `event` changed the state."""
        after = MOVES.get((self.state, event))
        moved = after is not None and after is not self.state
        self.state = after or self.state
        return moved

    def _register_soon(self) -> None:
        self._task = asyncio.create_task(self._register(), name=f"adsum-register-{self.name}")

    async def _register(self) -> None:
        """Tries until the registration is accepted, however long that takes."""
        backoff = Backoff(MIN_REGISTER_PAUSE, MAX_REGISTER_PAUSE)
        while self.state in (RegistrarState.REGISTERING, RegistrarState.WAITING):
            pause = backoff.next(self._rng)
            try:
                await self._register_once()
                return
            except RegistrationConflict as error:
                self._note_conflict(error)
            except (NotAuthenticated, NotAllowed) as error:
                self._note_denial(error)
                pause = REFUSED_PAUSE
            except (Invalid, RegistryRefused, LeaseLost, UnknownInstance) as error:
                _log.error("%s: the registration is refused: %s", self.name, error)
                self.refusal, pause = error, REFUSED_PAUSE
                self.first_answer.set()
            except (RegistryUnavailable, ProtocolViolation) as error:
                _log.warning("%s: not registered yet: %s", self.name, error)
            except Exception:
                # If the loop ended here, a running instance would stay unlisted for ever.
                _log.exception("%s: not registered yet, after an unexpected error", self.name)
            await self._clock.sleep(self._rng.uniform(pause / 2, pause))

    def _note_conflict(self, error: RegistrationConflict) -> None:
        """Records that another process is listed, and logs that once."""
        self._move(RegistrarEvent.TAKEN)
        self.first_answer.set()
        if not self.conflict:
            _log.warning("%s: not listed: %s; trying again until it is free", self.name, error)
        self.conflict = str(error)

    def _note_denial(self, error: NotAuthenticated | NotAllowed) -> None:
        """Records that this program may not register, and logs that once: its token may be replaced at any time."""
        self.first_answer.set()
        if self.denial != str(error):
            _log.error("%s: not listed: %s; trying again until that is mended", self.name, error)
        self.denial = str(error)

    async def _register_once(self) -> None:
        registration = await self._with_address()
        body = RegistrationBody.from_registration(registration, self._takeover)
        self._no_request.clear()
        try:
            written = await self._source.register(*self.key, body)
        finally:
            self._no_request.set()
        self._epoch, self.refusal, self.conflict, self.denial = written.epoch, None, "", ""
        self._takeover = Takeover.NEVER
        self._ttl = written.ttl if written.ttl is not None else registration.ttl
        if not self._move(RegistrarEvent.ACCEPTED):
            return
        _log.info("%s: registered at %s", self.name, registration.instance.authority)
        self._renewals.add(self)
        self.first_answer.set()
        if self.draining_reason is not None:
            await self._override(0.0)

    async def _with_address(self) -> Registration:
        """Returns the registration with an address that callers can reach. Raises `RegistryUnavailable`."""
        self.instance = replace(self._registration.instance, address=await self._address.find())
        return replace(self._registration, instance=self.instance)

    async def _override(self, wait: float) -> WriteResult:
        """Declares the instance draining. The answer names the consumers that have not acknowledged within `wait` s."""
        body = OverrideBody("draining", self.draining_reason or "", holder=self.holder, wait=wait)
        return await self._source.override(*self.key, body)
