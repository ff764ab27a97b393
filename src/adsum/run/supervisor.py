"""From the start of a program to its end: start it, list it when it answers, drain it, stop it.

The rules are the table in `phases`; this file does what each phase asks for.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from adsum.config.serve import ClientConfig, RunConfig
from adsum.core.model import Registration
from adsum.run.child_process import SIGNAL_EXIT_BASE, ChildProcess, ExitStatus, signal_name
from adsum.run.phases import MOVES, ProgramEvent, ProgramPhase
from adsum.run.port import WILDCARD_ADDRESSES, listening_addresses
from adsum.run.readiness import may_listen, wait_until_ready

if TYPE_CHECKING:
    from adsum.run.background_registrar import BackgroundRegistrar

FORWARDED_SIGNALS: Final = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that are the program's own business."""
TERMINATION_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals after which the program is to end; they reach it after the drain."""
EXIT_NOT_READY: Final = 124
"""Exit code when the program never answered."""
LEFTOVER_TIMEOUT: Final = 1.0
"""Seconds that processes which the program left behind in its group have, once it has ended; then they are killed."""
UNDRAINED_WARNING: Final = (
    "the program stopped before its callers were let go, and requests may have failed: have the signal sent to `adsum "
    "run` alone, by KillMode=mixed under systemd or stopasgroup=false under supervisord"
)

_log = logging.getLogger("adsum.run")


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """What to run, what to list it as, and how patient to be. `address` "" finds one when registering."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    registration: Registration
    address: str
    client: ClientConfig
    config: RunConfig
    take_over: bool = False

    @property
    def hosts(self) -> list[str]:
        """Where the program is looked for."""
        return [self.address] if self.address else ["127.0.0.1", "::1"]


class Supervisor:
    """Runs one plan once."""

    def __init__(self, plan: ProgramPlan, say: Callable[[str], None]) -> None:
        self.phase = ProgramPhase.STARTING
        self._plan = plan
        self._say = say
        self._signal = int(signal.SIGTERM)
        self._told = False
        self._late = False
        self._undrained = False
        """The program stopped by a signal while callers may still have called it."""
        self._step: asyncio.Task[None] | None = None
        self._child: ChildProcess
        self._listing: BackgroundRegistrar

    async def run(self) -> int:
        """Until the program has ended; the exit code. Raises `CannotStart`."""
        loop = asyncio.get_running_loop()
        for each in (*FORWARDED_SIGNALS, *TERMINATION_SIGNALS):
            # What is ignored, as under nohup, stays ignored, for the program too.
            if signal.getsignal(each) is not signal.SIG_IGN:
                loop.add_signal_handler(each, self._hear, each)
        self._child = ChildProcess(self._plan.argv, self._plan.environ)
        try:
            self._listing = self._make_listing()
            self._do(self._wait_for_answer())
            self._child.ended.add_done_callback(lambda _: self._on(ProgramEvent.DIED))
            ending = await asyncio.shield(self._child.ended)
            await self._cancel_step()
            await self._finish(ending)
            for each in (
                TERMINATION_SIGNALS
            ):  # One that comes as we exit must not change the exit code, which is the program's.
                if loop.remove_signal_handler(each):
                    signal.signal(each, signal.SIG_IGN)
        except BaseException:
            self._child.signal_group(signal.SIGKILL)
            raise
        return EXIT_NOT_READY if self._late else ending.code

    def _make_listing(self) -> BackgroundRegistrar:
        # Imported here: the program starts meanwhile.
        from adsum.client.client import Client
        from adsum.run.background_registrar import BackgroundRegistrar

        config, plan = self._plan.client, self._plan
        client = Client(config.url, zone=config.zone, actor=config.actor, cache=False)
        return BackgroundRegistrar(
            client,
            plan.registration,
            plan.address,
            plan.config.drain_timeout,
            self._say,
            take_over=plan.take_over,
        )

    def _hear(self, number: signal.Signals) -> None:
        if number in TERMINATION_SIGNALS:
            self._signal, self._told = number, True
            self._on(ProgramEvent.TOLD)
        else:
            self._child.signal(number)

    def _on(self, event: ProgramEvent) -> None:
        after = MOVES.get((self.phase, event))
        if after is None:
            return
        if event is ProgramEvent.DIED:
            by_signal = self._child.ended.result().code - SIGNAL_EXIT_BASE in TERMINATION_SIGNALS
            self._undrained |= self.phase is ProgramPhase.DRAINING or (self.phase is ProgramPhase.SERVING and by_signal)
        self.phase = after
        self._late = self._late or event is ProgramEvent.LATE
        if after is ProgramPhase.SERVING:
            self._listing.start()
        elif after is ProgramPhase.DRAINING:
            self._say(f"{signal_name(self._signal)}: draining for at most {self._plan.config.drain_timeout:g} s")
            self._do(self._drain())
        elif after is ProgramPhase.STOPPING:
            self._child.signal(self._signal)
            self._do(self._wait_for_end())
        elif after is ProgramPhase.KILLING:
            self._say("killing it")
            self._child.signal_group(signal.SIGKILL)

    async def _wait_for_answer(self) -> None:
        patience, registration = self._plan.config, self._plan.registration
        if patience.ready_timeout > 0:
            try:
                async with asyncio.timeout(patience.ready_timeout):
                    await wait_until_ready(registration, self._plan.hosts)
            except TimeoutError:
                self._say(
                    f"nothing answers at port {registration.instance.port} of {' or '.join(self._plan.hosts)} after "
                    f"{patience.ready_timeout:g} s, so it is stopped; {self._advice()}"
                )
                self._on(ProgramEvent.LATE)
                return
        self._on(ProgramEvent.ANSWERED)

    def _advice(self) -> str:
        """What a program that did not answer may need."""
        elsewhere = [
            each
            for each in listening_addresses(self._plan.registration.instance.port)
            if each not in WILDCARD_ADDRESSES
        ]
        if elsewhere and not set(elsewhere) & set(self._plan.hosts):
            return f"somebody listens on that port of {' and '.join(elsewhere)}: --address says where it is"
        return "does the program listen there (it is told by PORT)? --ready-timeout gives it longer"

    async def _drain(self) -> None:
        await self._listing.drain(f"{signal_name(self._signal)} came")
        if self._plan.config.ready_timeout > 0:  # Else it may never have listened.
            self._undrained = not await may_listen(self._plan.registration.instance.port, self._plan.hosts)
        self._on(ProgramEvent.DRAINED)

    async def _wait_for_end(self) -> None:
        await asyncio.sleep(self._plan.config.stop_timeout)
        self._say(f"it has not ended {self._plan.config.stop_timeout:g} s after {signal_name(self._signal)}")
        self._on(ProgramEvent.OVERDUE)

    async def _finish(self, ending: ExitStatus) -> None:
        """Tell the registry how it ended, and let nothing of it stay behind."""
        reason = f"the program {ending}" + (f" after {signal_name(self._signal)}" if self._told else "")
        if self._told and ending.status in (0, -self._signal, 128 + self._signal):
            reason = f"stopped by {signal_name(self._signal)}"
        self._say(reason)
        if self._undrained:
            _log.warning(UNDRAINED_WARNING)
        await asyncio.gather(self._listing.stop(reason), self._clear())

    async def _clear(self) -> None:
        """Processes that it left behind in its group serve nobody, and would keep its port."""
        if self._child.signal_group(signal.SIGTERM):
            with suppress(TimeoutError):
                async with asyncio.timeout(LEFTOVER_TIMEOUT):
                    while self._child.signal_group(0):  # noqa: ASYNC110 - the system tells nobody when a group is empty
                        await asyncio.sleep(0.02)
            self._child.signal_group(signal.SIGKILL)

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        """Begin what the phase waits for, instead of what the phase before waited for."""
        if self._step is not None:
            self._step.cancel()
        self._step = asyncio.create_task(step)

    async def _cancel_step(self) -> None:
        if self._step is not None:
            self._step.cancel()
            with suppress(asyncio.CancelledError):
                await self._step
