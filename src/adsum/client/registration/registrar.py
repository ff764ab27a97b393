"""The registrar of one instance: registers it, keeps it registered, drains it and deregisters it.

A registry that is down never stops a program from starting or ending. Registering goes on in the background, and an
instance that can't be deregistered in time leaves by expiry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random
from types import TracebackType
from typing import Final, Self

from adsum.client.registration.registrar_state import DrainResult, RegistrarState
from adsum.client.registration.registration_loop import RegistrationLoop
from adsum.client.registration.renewals import Renewals
from adsum.client.registration.termination import RegistrationBlock, task_block
from adsum.client.sources.source import Source
from adsum.core.errors import AdsumError, LeaseLost
from adsum.core.model import Instance, Registration
from adsum.ports import Clock
from adsum.wire import MAX_WAIT

START_TIMEOUT: Final = 2.0
"""Seconds that `start` waits for the first registration; then it goes on in the background."""
DRAIN_ANSWER_MARGIN: Final = 0.7
"""Seconds by which the answer to a drain may come later than the wait of the drain; then the drain ends unconfirmed."""
STOP_TIMEOUT: Final = 3.0
"""Seconds that deregistering may take; then the instance leaves by expiry."""
MIN_STOP_TIMEOUT: Final = 0.3
"""Seconds that deregistering may take at least, after a drain that used up its time. When the registry hangs,
`DEFAULT_DRAIN_WAIT`, `DRAIN_ANSWER_MARGIN`, this and `api.GOODBYE_TIMEOUT` add up to less than the 10 s after which
`docker stop` kills."""

_log = logging.getLogger(__name__)


class Registrar:
    """The registration of one instance, from `start` to `stop`. Made by `Client.register`; an async context manager."""

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
        """Without `address` the address is determined when registering, and that of `registration` does not count.

        `take_over`: the first registration takes the id from any process.
        """
        self.drain_wait = drain_wait
        self.signals = signals
        self._source = source
        self._loop = RegistrationLoop(
            registration, source, renewals, address=address, take_over=take_over, clock=clock, rng=rng
        )
        self._stop_timeout = STOP_TIMEOUT
        self._shutdown: asyncio.Task[None] | None = None
        self._shutdown_hook: Callable[[], Awaitable[None]] | None = None
        self._shutdown_hook_timeout = 0.0
        self._block: RegistrationBlock | None = None

    @property
    def service(self) -> str:
        return self._loop.key[0]

    @property
    def id(self) -> str:
        return self._loop.key[1]

    @property
    def state(self) -> RegistrarState:
        return self._loop.state

    @property
    def epoch(self) -> str:
        """The epoch in which the instance was registered; "" before that."""
        return self._loop.epoch

    @property
    def registered(self) -> bool:
        """True if the registry lists the instance, as far as this program knows."""
        return self.state is RegistrarState.REGISTERED

    async def await_registration(self, wait: float) -> bool:
        """Waits up to `wait` seconds for a registration that is under way. Returns whether the instance is listed."""
        await self._loop.wait_for_answer(wait)
        return self.registered

    @property
    def conflict(self) -> str:
        """A sentence about the live process that has the id or the place; "" if there is none."""
        return self._loop.conflict

    @property
    def denial(self) -> str:
        """A sentence: the reason why this program may not register, such as an expired token; "" if it may."""
        return self._loop.denial

    @property
    def instance(self) -> Instance | None:
        """The instance as it was declared; None before its address is known."""
        return self._loop.instance

    async def start(self, wait: float = START_TIMEOUT) -> None:
        """Registers. Returns when that is done, at the latest after `wait` seconds; then it goes on in the background.

        It also goes on in the background if a live process has the id: the instance is listed once that process lapses,
        leaves or stops answering. It goes on likewise if this program may not register (`denial`), because its token
        may be replaced. Raises `Invalid` or `RegistryRefused` if the registry refuses the registration
        within that time; then the registrar is stopped.
        """
        if not self._loop.start():
            return
        try:
            async with asyncio.timeout(wait):
                await self._loop.first_answer.wait()
        except TimeoutError:
            _log.warning("%s: no registry has answered yet; registering goes on in the background", self._loop.name)
        if self._loop.refusal is not None:
            refusal = self._loop.refusal
            await self._loop.end()
            raise refusal

    async def drain(self, wait: float | None = None, reason: str = "") -> DrainResult:
        """Stops consumers from starting new calls to this instance.

        Returns when every cooperating consumer has acknowledged that, at the latest after `wait` seconds (default:
        `drain_wait`) and `DRAIN_ANSWER_MARGIN`. Never raises for a registry that is down.
        """
        wait = min(self.drain_wait if wait is None else wait, MAX_WAIT)
        self._loop.draining_reason = reason or "the provider is stopping"
        if self.state not in (RegistrarState.REGISTERING, RegistrarState.REGISTERED):
            return DrainResult(done=True, reason=f"this instance is not listed: its registrar is {self.state}")
        now = asyncio.get_running_loop().time
        ends = now() + wait + DRAIN_ANSWER_MARGIN + MIN_STOP_TIMEOUT
        try:
            async with asyncio.timeout(wait + DRAIN_ANSWER_MARGIN):
                drained = await self._loop.declare_draining(wait)
        except LeaseLost as error:
            drained = DrainResult(done=True, reason=str(error))
        except TimeoutError:
            drained = DrainResult(done=False, reason="the registry has not answered in time")
        except AdsumError as error:
            drained = DrainResult(done=False, reason=str(error))
        self._stop_timeout = min(STOP_TIMEOUT, max(MIN_STOP_TIMEOUT, ends - now()))
        _log.info("%s: draining: %s", self._loop.name, drained)
        return drained

    async def stop(self, reason: str = "") -> None:
        """Deregisters, within `STOP_TIMEOUT` seconds. Idempotent; never raises for a registry that is down.

        After a drain it has the time that the drain left, and at least `MIN_STOP_TIMEOUT` seconds.
        """
        may_be_listed = self.state in (RegistrarState.REGISTERING, RegistrarState.REGISTERED, RegistrarState.WAITING)
        await self._loop.end()
        if not may_be_listed:
            return
        try:
            async with asyncio.timeout(self._stop_timeout):
                await self._source.deregister(
                    self.service, self.id, reason or "the provider stopped", self._loop.holder
                )
        except LeaseLost:
            _log.info("%s: another process is listed under this id, and stays", self._loop.name)
        except Exception as error:
            reason = str(error) or "no answer in time"
            _log.warning("%s: not deregistered, it will leave by expiry: %s", self._loop.name, reason)

    async def detach(self) -> None:
        """Stops renewing without deregistering, because another process is about to register the same instance.

        If no process does, the instance leaves by expiry. Idempotent.
        """
        await self._loop.end()

    async def shut_down(self, *, interrupt_drain: bool = False) -> None:
        """Drains the instance if it is listed, and deregisters it. Later calls wait for the first one.

        With `interrupt_drain` a later call ends the drain instead, and deregisters at once.
        """
        if self._shutdown is None:
            self._shutdown = asyncio.create_task(self._shut_down(), name=f"adsum-shutdown-{self._loop.name}")
        elif interrupt_drain:
            self._shutdown.cancel()
            await asyncio.gather(self._shutdown, return_exceptions=True)
            await self.stop()
            return
        await self._shutdown

    def set_shutdown_hook(self, hook: Callable[[], Awaitable[None]], timeout: float) -> None:
        """Makes `shut_down` await `hook()` once the instance is deregistered, for example to stop a server.

        The hook may take `timeout` seconds.
        """
        self._shutdown_hook, self._shutdown_hook_timeout = hook, timeout

    @property
    def shutdown_timeout(self) -> float:
        """Seconds within which `shut_down` has ended."""
        return 2 * self.drain_wait + DRAIN_ANSWER_MARGIN + STOP_TIMEOUT + self._shutdown_hook_timeout

    async def __aenter__(self) -> Self:
        if self.signals:
            self._block = task_block(self.shut_down, self.shutdown_timeout)
            self._block.enter()
        try:
            await self.start()
        except BaseException as error:
            self._leave_block(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.shut_down(interrupt_drain=self._block is not None and self._block.ended_by_second_signal(error))
        finally:
            self._leave_block(error)

    def _leave_block(self, error: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.leave(error)

    async def _shut_down(self) -> None:
        if self.drain_wait > 0 and await self.await_registration(self.drain_wait):
            await self.drain()
        await self.stop()
        if self._shutdown_hook is not None:
            await self._shutdown_hook()
