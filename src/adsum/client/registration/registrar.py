"""Registers an instance, keeps it registered, drains and deregisters it.

The registry being down never stops a program from starting or ending: registering goes on in the background, and what
can't be taken out in time leaves by expiry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Final, Self

from adsum.client.errors import ProtocolViolation, RegistryRefused, RegistryUnavailable
from adsum.client.registration.instance_address import InstanceAddress
from adsum.client.registration.registrar_state import MOVES, DrainResult, RegistrarEvent, RegistrarState
from adsum.client.registration.renewals import Renewals
from adsum.client.registration.termination import RegistrationBlock, task_block
from adsum.client.sources.source import Source
from adsum.core.backoff import Backoff
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import AdsumError, Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Instance, Registration
from adsum.ports import Clock
from adsum.wire import MAX_WAIT, LeaseBody, OverrideBody, RegistrationBody, WriteResult

START_TIMEOUT: Final = 2.0
"""Seconds that `start` waits for the first registration; then it goes on in the background."""
DRAIN_ANSWER_MARGIN: Final = 0.7
"""Seconds by which the registry may answer a drain later than it was to wait; then the drain ends unconfirmed."""
STOP_TIMEOUT: Final = 3.0
"""Seconds that deregistering may take; then the instance leaves by expiry."""
MIN_STOP_TIMEOUT: Final = 0.3
"""Seconds that deregistering may take after a drain that took as long as it may. When the registry hangs, `DEFAULT_DRAIN_WAIT`,
`DRAIN_ANSWER_MARGIN`, this and `api.GOODBYE_WAIT` are together less than the 10 s after which `docker stop` kills."""
MIN_REGISTER_PAUSE, MAX_REGISTER_PAUSE = 0.5, 5.0
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
        signals: bool,
        clock: Clock,
        rng: Random,
        take_over: bool = False,
    ) -> None:
        """`registration`'s address counts only if `address` is given; without, it is found when registering.

        `take_over`: the first registration takes the id from any process.
        """
        self.state = RegistrarState.IDLE
        self.drain_wait = drain_wait
        self.signals = signals
        self.epoch = ""
        self._registration = registration
        self._address = InstanceAddress(address, source)
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
        self._stop_wait = STOP_TIMEOUT
        self._ttl = registration.ttl
        self._takeover = Takeover.FORCE if take_over else Takeover.USUAL
        """What the next registration may take. Once we were listed, nothing: so two processes never alternate."""
        self._kept_out = ""
        """Which process keeps us out, in the registry's words; "" if none does."""
        self._finishing: asyncio.Task[None] | None = None
        self._block: RegistrationBlock | None = None
        self._last: Callable[[], Awaitable[None]] | None = None
        self._last_patience = 0.0

    @property
    def id(self) -> str:
        return self._registration.instance.id

    @property
    def service(self) -> str:
        return self._registration.instance.service

    @property
    def registered(self) -> bool:
        """Whether the registry lists us, as far as we know."""
        return self.state is RegistrarState.REGISTERED

    async def await_registration(self, wait: float) -> bool:
        """Whether the registry lists us, once it has answered what is under way, at latest after `wait` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._answered.wait()
        return self.registered

    @property
    def conflict(self) -> str:
        """Which live process has our id or place, in a sentence; "" if none does."""
        return self._kept_out

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

    async def start(self, wait: float = START_TIMEOUT) -> None:
        """Register. Returns once that is done, at latest after `wait` seconds; then it goes on in the background.

        So it does if a live process has our id: we are listed once it lapses, leaves or does not answer. Raises
        `Invalid` or `RegistryRefused` if the registry refuses within that time; then it is not tried again.
        """
        if not self._move(RegistrarEvent.STARTED):
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
            self._move(RegistrarEvent.STOPPED)
            raise refusal

    async def drain(self, wait: float | None = None, reason: str = "") -> DrainResult:
        """Have no new calls sent here: returns when every cooperating consumer routes around us, at latest after `wait`
        seconds (default: `drain_wait`) and `DRAIN_ANSWER_MARGIN` more. Never raises for a registry that is down.
        """
        wait = min(self.drain_wait if wait is None else wait, MAX_WAIT)
        self._draining = reason or "the provider is stopping"
        if self.state not in (RegistrarState.REGISTERING, RegistrarState.REGISTERED):
            return DrainResult(done=True, reason=f"it is {self.state}, so nobody is sent here by us")
        now = asyncio.get_running_loop().time
        ends = now() + wait + DRAIN_ANSWER_MARGIN + MIN_STOP_TIMEOUT
        try:
            async with asyncio.timeout(wait + DRAIN_ANSWER_MARGIN):
                drained = await self._override(wait)
        except LeaseLost as error:
            drained = DrainResult(done=True, reason=str(error))
        except TimeoutError:
            drained = DrainResult(done=False, reason="the registry has not answered in time")
        except AdsumError as error:
            drained = DrainResult(done=False, reason=str(error))
        self._stop_wait = min(STOP_TIMEOUT, max(MIN_STOP_TIMEOUT, ends - now()))
        _log.info("%s: draining: %s", self._name, drained)
        return drained

    async def stop(self, reason: str = "") -> None:
        """Deregister, within `STOP_TIMEOUT` seconds; after a drain within what that left of its time, at least
        `MIN_STOP_TIMEOUT`. Idempotent; never raises for a registry that is down.
        """
        attempted = self.state in (RegistrarState.REGISTERING, RegistrarState.REGISTERED, RegistrarState.WAITING)
        self._renewals.remove(self)
        await self._end_registering()
        self._move(RegistrarEvent.STOPPED)
        if not attempted:
            return
        try:
            async with asyncio.timeout(self._stop_wait):
                await self._source.deregister(
                    self.service, self.id, reason or "the provider stopped", self._registration.holder
                )
        except LeaseLost:
            _log.info("%s: another process is listed, and stays", self._name)
        except Exception as error:
            reason = str(error) or "no answer in time"
            _log.warning("%s: not deregistered, it will leave by expiry: %s", self._name, reason)

    async def detach(self) -> None:
        """Let go without deregistering: another process is about to register the same instance. If none does, it leaves
        by expiry. Idempotent.
        """
        self._renewals.remove(self)
        await self._end_registering()
        self._move(RegistrarEvent.STOPPED)

    def on_lease_lost(self, reason: str) -> None:
        """The registry does not hold our lease any more. Called by `Renewals`."""
        self._renewals.remove(self)
        if reason == "replaced":
            if self._move(RegistrarEvent.SUPERSEDED):
                _log.info("%s: a later registration of this program takes its place", self._name)
        elif self._move(RegistrarEvent.TAKEN if reason == "superseded" else RegistrarEvent.FORGOTTEN):
            if self.state is RegistrarState.REGISTERING:
                _log.warning("%s: the registry does not know us any more; registering again", self._name)
            self._register_soon()

    def on_lease_renewed(self) -> None:
        """The registry holds our lease. Called by `Renewals`. If our address is another by now, register there."""
        if self._address.is_outdated and self._move(RegistrarEvent.ADDRESS_CHANGED):
            _log.warning("%s: this host's address is another one now; registering there", self._name)
            self._renewals.remove(self)
            self._register_soon()

    async def shut_down(self, *, interrupt_drain: bool = False) -> None:
        """Drain, if we are listed, and stop, once for all callers. `interrupt_drain` ends a drain that is under way."""
        if self._finishing is None:
            self._finishing = asyncio.create_task(self._finish(), name=f"adsum-finish-{self._name}")
        elif interrupt_drain:
            self._finishing.cancel()
            await asyncio.gather(self._finishing, return_exceptions=True)
            await self.stop()
            return
        await self._finishing

    def set_shutdown_hook(self, hook: Callable[[], Awaitable[None]], timeout: float) -> None:
        """Have `finish` await `hook()` once we are deregistered, for at most `patience` seconds: to stop a server."""
        self._last, self._last_patience = hook, timeout

    @property
    def shutdown_timeout(self) -> float:
        """Seconds within which `finish` is over."""
        return 2 * self.drain_wait + DRAIN_ANSWER_MARGIN + STOP_TIMEOUT + self._last_patience

    async def __aenter__(self) -> Self:
        if self.signals:
            self._block = task_block(self.shut_down, self.shutdown_timeout)
            self._block.enter()
        try:
            await self.start()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.shut_down(interrupt_drain=self._block is not None and self._block.ended_by_second_signal(error))
        finally:
            self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.leave(error)

    async def _finish(self) -> None:
        if self.drain_wait > 0 and await self.await_registration(self.drain_wait):
            await self.drain()
        await self.stop()
        if self._last is not None:
            await self._last()

    @property
    def _name(self) -> str:
        return f"{self.service}/{self.id}"

    def _move(self, event: RegistrarEvent) -> bool:
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
        backoff = Backoff(MIN_REGISTER_PAUSE, MAX_REGISTER_PAUSE)
        while self.state in (RegistrarState.REGISTERING, RegistrarState.WAITING):
            pause = backoff.next(self._rng)
            try:
                await self._register_once()
                return
            except RegistrationConflict as error:
                self._wait_for(error)
            except (Invalid, RegistryRefused, LeaseLost, UnknownInstance) as error:
                _log.error("%s: the registration is refused: %s", self._name, error)
                self._refusal, pause = error, REFUSED_PAUSE
                self._tried.set()
            except (RegistryUnavailable, ProtocolViolation) as error:
                _log.warning("%s: not registered yet: %s", self._name, error)
            except Exception:
                # Ending here would leave a running instance unlisted for ever.
                _log.exception("%s: not registered yet", self._name)
            await self._clock.sleep(self._rng.uniform(pause / 2, pause))

    def _wait_for(self, taken: RegistrationConflict) -> None:
        """Somebody else is listed. Say so once, and go on asking."""
        self._move(RegistrarEvent.TAKEN)
        self._tried.set()
        if not self._kept_out:
            _log.warning("%s: not listed: %s; asking again until it is free", self._name, taken)
        self._kept_out = str(taken)

    async def _register_once(self) -> None:
        registration = await self._addressed()
        body = RegistrationBody.from_registration(registration, self._takeover)
        self._answered.clear()
        try:
            written = await self._source.register(self.service, self.id, body)
        finally:
            self._answered.set()
        self.epoch, self._refusal, self._kept_out = written.epoch, None, ""
        self._takeover = Takeover.NEVER
        self._ttl = written.ttl if written.ttl is not None else registration.ttl
        if not self._move(RegistrarEvent.ACCEPTED):
            return
        _log.info("%s: registered at %s", self._name, registration.instance.authority)
        self._renewals.add(self)
        self._tried.set()
        if self._draining is not None:
            await self._declare(0.0)

    async def _addressed(self) -> Registration:
        """The registration with an address that callers can reach."""
        self._instance = replace(self._registration.instance, address=await self._address.find())
        return replace(self._registration, instance=self._instance)

    async def _override(self, wait: float) -> DrainResult:
        ends = self._clock.now() + wait
        try:
            written = await self._declare(wait)
        except UnknownInstance:
            # The registry lost its state, and consumers still show what it knew before: they must hear that we drain.
            registration = await self._addressed()
            await self._source.register(
                self.service, self.id, RegistrationBody.from_registration(registration, Takeover.NEVER)
            )
            wait = max(0.0, ends - self._clock.now())
            written = await self._declare(wait)
        if wait <= 0:
            return DrainResult(done=False, reason="nobody was waited for")
        return DrainResult.from_answer(written)

    async def _declare(self, wait: float) -> WriteResult:
        """Be listed as draining; the answer names the consumers that had not heard after `wait` seconds."""
        body = OverrideBody("draining", self._draining or "", holder=self._registration.holder, wait=wait)
        return await self._source.override(self.service, self.id, body)
