"""Supervises a wrapped program: starts it, registers it when it answers, drains it, stops it.

The table in `phases` holds the rules; this module carries out the work of each phase.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from adsum.config.client import ClientConfig
from adsum.config.run import RunConfig
from adsum.core.addresses import WILDCARD_ADDRESSES
from adsum.core.model import Registration
from adsum.run.child_process import SIGNAL_EXIT_BASE, ChildProcess, ExitStatus, signal_name
from adsum.run.phases import MOVES, ProgramEvent, ProgramPhase
from adsum.run.port import listening_addresses
from adsum.run.readiness import may_listen, wait_until_ready

if TYPE_CHECKING:
    from adsum.run.background_registrar import BackgroundRegistrar

FORWARDED_SIGNALS: Final = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that are forwarded to the program at once."""
TERMINATION_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that end the program; it receives them after the drain."""
EXIT_NOT_READY: Final = 124
"""The exit code if the program never answered."""
LEFTOVER_TIMEOUT: Final = 1.0
"""Seconds for processes that the program left in its group to end after it has ended; then they are killed."""
UNDRAINED_WARNING: Final = (
    "the program stopped before the drain was complete, and requests may have failed: send the signal to `adsum run` "
    "alone, with KillMode=mixed under systemd or stopasgroup=false under supervisord"
)

_log = logging.getLogger("adsum.run")


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """A program to run, its registration, and its time limits. With `address` "" the registrar finds the address."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    registration: Registration
    address: str
    client: ClientConfig
    config: RunConfig
    take_over: bool = False

    @property
    def hosts(self) -> list[str]:
        """The hosts on which the program is expected to answer."""
        return [self.address] if self.address else ["127.0.0.1", "::1"]


class Supervisor:
    """Runs one plan, once."""

    def __init__(self, plan: ProgramPlan, log: Callable[[str], None]) -> None:
        self.phase = ProgramPhase.STARTING
        self._plan = plan
        self._log = log
        self._signal = int(signal.SIGTERM)
        self._signalled = False
        self._not_ready = False
        self._undrained = False
        """True if the program stopped while consumers may still have called it."""
        self._step: asyncio.Task[None] | None = None
        self._child: ChildProcess
        self._registrar: BackgroundRegistrar

    async def run(self) -> int:
        """Run the program until it has ended and return its exit code. Raises `CannotStart`."""
        loop = asyncio.get_running_loop()
        for number in (*FORWARDED_SIGNALS, *TERMINATION_SIGNALS):
            # A signal that is ignored, as under nohup, stays ignored, also for the program.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._receive_signal, number)
        self._child = ChildProcess(self._plan.argv, self._plan.environ)
        try:
            self._registrar = self._make_registrar()
            self._start_step(self._wait_until_ready())
            self._child.ended.add_done_callback(lambda _: self._handle(ProgramEvent.EXITED))
            exit_status = await asyncio.shield(self._child.ended)
            await self._cancel_step()
            await self._finish(exit_status)
            for number in TERMINATION_SIGNALS:  # A signal during exit must not replace the program's exit code.
                if loop.remove_signal_handler(number):
                    signal.signal(number, signal.SIG_IGN)
        except BaseException:
            self._child.signal_group(signal.SIGKILL)
            raise
        return EXIT_NOT_READY if self._not_ready else exit_status.code

    def _make_registrar(self) -> BackgroundRegistrar:
        # Imported late, while the program starts.
        from adsum.client.client import Client
        from adsum.run.background_registrar import BackgroundRegistrar

        config, plan = self._plan.client, self._plan
        client = Client(
            config.url,
            zone=config.zone,
            actor=config.actor,
            cache=False,
            token_file=config.token_file,
            authority_file=config.authority_file,
        )
        return BackgroundRegistrar(
            client,
            plan.registration,
            plan.address,
            plan.config.drain_timeout,
            self._log,
            take_over=plan.take_over,
        )

    def _receive_signal(self, number: signal.Signals) -> None:
        if number in TERMINATION_SIGNALS:
            self._signal, self._signalled = number, True
            self._handle(ProgramEvent.SIGNALLED)
        else:
            self._child.signal(number)

    def _handle(self, event: ProgramEvent) -> None:
        next_phase = MOVES.get((self.phase, event))
        if next_phase is None:
            return
        if event is ProgramEvent.EXITED:
            by_signal = self._child.ended.result().code - SIGNAL_EXIT_BASE in TERMINATION_SIGNALS
            self._undrained |= self.phase is ProgramPhase.DRAINING or (self.phase is ProgramPhase.SERVING and by_signal)
        self.phase = next_phase
        self._not_ready = self._not_ready or event is ProgramEvent.NOT_READY
        if next_phase is ProgramPhase.SERVING:
            self._registrar.start()
        elif next_phase is ProgramPhase.DRAINING:
            self._log(f"{signal_name(self._signal)}: draining for at most {self._plan.config.drain_timeout:g} s")
            self._start_step(self._drain())
        elif next_phase is ProgramPhase.STOPPING:
            self._child.signal(self._signal)
            self._start_step(self._wait_for_end())
        elif next_phase is ProgramPhase.KILLING:
            self._log("killing the program")
            self._child.signal_group(signal.SIGKILL)

    async def _wait_until_ready(self) -> None:
        config, registration = self._plan.config, self._plan.registration
        if config.ready_timeout > 0:
            try:
                async with asyncio.timeout(config.ready_timeout):
                    await wait_until_ready(registration, self._plan.hosts)
            except TimeoutError:
                self._log(
                    f"nothing answers at port {registration.instance.port} of {' or '.join(self._plan.hosts)} after "
                    f"{config.ready_timeout:g} s, so the program is stopped; {self._advice()}"
                )
                self._handle(ProgramEvent.NOT_READY)
                return
        self._handle(ProgramEvent.READY)

    def _advice(self) -> str:
        """Returns advice about a program that did not answer."""
        elsewhere = [
            address
            for address in listening_addresses(self._plan.registration.instance.port)
            if address not in WILDCARD_ADDRESSES
        ]
        if elsewhere and not set(elsewhere) & set(self._plan.hosts):
            return f"a program listens on that port of {' and '.join(elsewhere)}: set --address to where it listens"
        return "does the program listen on $PORT? --ready-timeout allows more time"

    async def _drain(self) -> None:
        await self._registrar.drain(f"received {signal_name(self._signal)}")
        if self._plan.config.ready_timeout > 0:  # Without that check it may never have listened.
            self._undrained = not await may_listen(self._plan.registration.instance.port, self._plan.hosts)
        self._handle(ProgramEvent.DRAINED)

    async def _wait_for_end(self) -> None:
        await asyncio.sleep(self._plan.config.stop_timeout)
        self._log(f"the program has not ended {self._plan.config.stop_timeout:g} s after {signal_name(self._signal)}")
        self._handle(ProgramEvent.NOT_STOPPED)

    async def _finish(self, exit_status: ExitStatus) -> None:
        """Deregister the program with its exit status as the reason, and end the processes that it left behind."""
        reason = f"the program {exit_status}" + (f" after {signal_name(self._signal)}" if self._signalled else "")
        if self._signalled and exit_status.status in (0, -self._signal, 128 + self._signal):
            reason = f"stopped by {signal_name(self._signal)}"
        self._log(reason)
        if self._undrained:
            _log.warning(UNDRAINED_WARNING)
        await asyncio.gather(self._registrar.stop(reason), self._end_leftovers())

    async def _end_leftovers(self) -> None:
        """End the processes that the program left in its group: they would keep its port."""
        if self._child.signal_group(signal.SIGTERM):
            with suppress(TimeoutError):
                async with asyncio.timeout(LEFTOVER_TIMEOUT):
                    while self._child.signal_group(0):  # noqa: ASYNC110 - the system sends no event when a group is empty
                        await asyncio.sleep(0.02)
            self._child.signal_group(signal.SIGKILL)

    def _start_step(self, step: Coroutine[Any, Any, None]) -> None:
        """Start the work of the new phase, and cancel that of the phase before."""
        if self._step is not None:
            self._step.cancel()
        self._step = asyncio.create_task(step)

    async def _cancel_step(self) -> None:
        if self._step is not None:
            self._step.cancel()
            with suppress(asyncio.CancelledError):
                await self._step
