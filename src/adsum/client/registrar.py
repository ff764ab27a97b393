"""Registers an instance, keeps it registered, drains and deregisters it.

The registry being down never stops a program from starting or ending: registering goes on in the background, and what
can't be taken out in time leaves by expiry.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Final, Self

from adsum.client.errors import Garbled, RegistryRefused, RegistryUnavailable
from adsum.client.ports import Source
from adsum.client.renewals import Renewals
from adsum.client.standing import MOVES, Drained, Event, State
from adsum.core.backoff import Backoff
from adsum.core.errors import AdsumError, Invalid, LeaseLost, UnknownInstance
from adsum.core.heartbeats import DRAIN_WAIT as DRAIN_WAIT
from adsum.core.model import Instance, Registration
from adsum.ports import Clock
from adsum.wire import MAX_WAIT, LeaseBody, OverrideBody, RegistrationBody

ADDRESS_VARIABLE: Final = "ADSUM_ADDRESS"
START_WAIT: Final = 2.0
"""Seconds that `start` waits for the first registration; then it goes on in the background."""
ANSWER_LATE: Final = 5.0
"""Seconds by which the registry may answer a drain later than that; then the drain ends unconfirmed."""
STOP_WAIT: Final = 3.0
"""Seconds that deregistering may take; then the instance leaves by expiry."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Bounds of the pause before registering again when no registry answers."""
REFUSED_PAUSE: Final = 60.0
"""Seconds before registering again after the registry refused a registration that it had accepted before."""

_log = logging.getLogger(__name__)


class Registrar:
    """One instance's registration, from `start` to `stop`. Made by `Client.register`; an async context manager."""

    def __init__(
        self,
        registration: Registration,
        source: Source,
        renewals: Renewals,
        *,
        address: str | None,
        drain_wait: float,
        clock: Clock,
        rng: Random,
    ) -> None:
        """`registration`'s address counts only if `address` is given; without, it is found when registering."""
        self.state = State.IDLE
        self.drain_wait = drain_wait
        self.epoch = ""
        self._registration = replace(registration, holder=registration.holder or secrets.token_hex(8))
        self._address = address or os.environ.get(ADDRESS_VARIABLE) or None
        self._instance: Instance | None = None
        self._source = source
        self._renewals = renewals
        self._clock = clock
        self._rng = rng
        self._registering: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._answered = asyncio.Event()
        """Clear while a registration is under way: it may be in the catalog already."""
        self._answered.set()
        self._refusal: AdsumError | None = None
        self._draining: str | None = None
        self._ttl = registration.ttl

    @property
    def id(self) -> str:
        return self._registration.instance.id

    @property
    def service(self) -> str:
        return self._registration.instance.service

    @property
    def registered(self) -> bool:
        """Whether the registry lists us, as far as we know."""
        return self.state is State.REGISTERED

    async def listed(self, wait: float) -> bool:
        """Whether the registry lists us, once it has answered what is under way, at latest after `wait` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._answered.wait()
        return self.registered

    @property
    def instance(self) -> Instance | None:
        """The instance as it was declared; None before its address is known."""
        return self._instance

    @property
    def lease(self) -> LeaseBody:
        """What is renewed."""
        return LeaseBody(self.service, self.id, self._registration.holder)

    @property
    def ttl(self) -> float | None:
        """Seconds within which the lease must be renewed; None: it has no lease."""
        return self._ttl

    async def start(self, wait: float = START_WAIT) -> None:
        """Register. Returns once that is done, at latest after `wait` seconds; then it goes on in the background.

        Raises `Invalid` or `RegistryRefused` if the registry refuses within that time; then it is not tried again.
        """
        if not self._move(Event.STARTED):
            return
        self._register_soon()
        try:
            async with asyncio.timeout(wait):
                await self._tried.wait()
        except TimeoutError:
            _log.warning("%s: no registry has answered yet; registering goes on in the background", self._name)
        if self._refusal is not None:
            refusal = self._refusal
            await self._end_registering()
            self._move(Event.STOPPED)
            raise refusal

    async def drain(self, wait: float | None = None, reason: str = "") -> Drained:
        """Have no new calls sent here: returns when every cooperating consumer routes around us, at latest after `wait`
        seconds (default: `drain_wait`) and `ANSWER_LATE` more. Never raises for a registry that is down.
        """
        wait = min(self.drain_wait if wait is None else wait, MAX_WAIT)
        self._draining = reason or "the provider is stopping"
        if self.state in (State.IDLE, State.SUPERSEDED, State.STOPPED):
            return Drained(done=True, why=f"it is {self.state}, so nobody is sent here by us")
        try:
            async with asyncio.timeout(wait + ANSWER_LATE):
                drained = await self._override(wait)
        except LeaseLost as error:
            drained = Drained(done=True, why=str(error))
        except TimeoutError:
            drained = Drained(done=False, why="no registry answered in time")
        except AdsumError as error:
            drained = Drained(done=False, why=str(error))
        _log.info("%s: draining: %s", self._name, drained.why or "no consumer calls any more")
        return drained

    async def stop(self, reason: str = "") -> None:
        """Deregister, within `STOP_WAIT` seconds. Idempotent; never raises for a registry that is down."""
        attempted = self.state in (State.REGISTERING, State.REGISTERED)
        self._renewals.remove(self)
        await self._end_registering()
        self._move(Event.STOPPED)
        if not attempted:
            return
        try:
            async with asyncio.timeout(STOP_WAIT):
                await self._source.deregister(
                    self.service, self.id, reason or "the provider stopped", self._registration.holder
                )
        except LeaseLost:
            _log.info("%s: already taken over by another registration", self._name)
        except Exception as error:
            reason = str(error) or "no answer in time"
            _log.warning("%s: not deregistered, it will leave by expiry: %s", self._name, reason)

    async def leave(self) -> None:
        """Let go without deregistering: another process is about to register the same instance. If none does, it leaves
        by expiry. Idempotent.
        """
        self._renewals.remove(self)
        await self._end_registering()
        self._move(Event.STOPPED)

    def lost(self, reason: str) -> None:
        """The registry does not hold our lease any more. Called by `Renewals`."""
        self._renewals.remove(self)
        if reason == Event.SUPERSEDED:
            if self._move(Event.SUPERSEDED):
                _log.error("%s: another registration took this id over; not registering again", self._name)
        elif self._move(Event.UNKNOWN):
            _log.warning("%s: the registry does not know us any more; registering again", self._name)
            self._register_soon()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.drain_wait > 0 and await self.listed(self.drain_wait):
            await self.drain()
        await self.stop()

    @property
    def _name(self) -> str:
        return f"{self.service}/{self.id}"

    def _move(self, event: Event) -> bool:
        """Whether `event` moved us."""
        after = MOVES.get((self.state, event))
        moved = after is not None and after is not self.state
        self.state = after or self.state
        return moved

    def _register_soon(self) -> None:
        self._registering = asyncio.create_task(self._register(), name=f"adsum-register-{self._name}")

    async def _end_registering(self) -> None:
        task, self._registering = self._registering, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _register(self) -> None:
        """Until it is done, however long that takes."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while self.state is State.REGISTERING:
            pause = backoff.next(self._rng)
            try:
                await self._register_once()
                return
            except (Invalid, RegistryRefused, LeaseLost, UnknownInstance) as error:
                _log.error("%s: the registration is refused: %s", self._name, error)
                self._refusal, pause = error, REFUSED_PAUSE
                self._tried.set()
            except (RegistryUnavailable, Garbled) as error:
                _log.warning("%s: not registered yet: %s", self._name, error)
            except Exception:
                # Ending here would leave a running instance unlisted for ever.
                _log.exception("%s: not registered yet", self._name)
            await self._clock.sleep(self._rng.uniform(pause / 2, pause))

    async def _register_once(self) -> None:
        registration = await self._addressed()
        self._answered.clear()
        try:
            written = await self._source.register(self.service, self.id, RegistrationBody.of(registration))
        finally:
            self._answered.set()
        self.epoch, self._refusal = written.epoch, None
        self._ttl = written.ttl if written.ttl is not None else registration.ttl
        if not self._move(Event.ACCEPTED):
            return
        _log.info("%s: registered at %s", self._name, registration.instance.authority)
        self._renewals.add(self)
        self._tried.set()
        if self._draining is not None:
            await self._declare(0.0)

    async def _addressed(self) -> Registration:
        """The registration with an address that callers can reach; found once."""
        if self._instance is None:
            address = self._address or await self._source.local_address()
            self._instance = replace(self._registration.instance, address=address)
        return replace(self._registration, instance=self._instance)

    async def _override(self, wait: float) -> Drained:
        try:
            unaware = await self._declare(wait)
        except UnknownInstance:
            # The registry lost its state, and consumers still show what it knew before: they must hear that we drain.
            registration = await self._addressed()
            await self._source.register(self.service, self.id, RegistrationBody.of(registration))
            unaware = await self._declare(wait)
        if unaware:
            return Drained(False, unaware, f"{unaware} consumers had not acknowledged it in time")
        return Drained(done=wait > 0, why="" if wait > 0 else "nobody was waited for")

    async def _declare(self, wait: float) -> int:
        """Be listed as draining; how many consumers had not heard after `wait` seconds."""
        body = OverrideBody("draining", self._draining or "", holder=self._registration.holder, wait=wait)
        return (await self._source.override(self.service, self.id, body)).unaware
