"""Drains and deregisters what this process registered when a signal tells it to end, before the signal takes effect.

A registrar is entered as a block, by `with` or `async with`. On SIGTERM or SIGINT every block that the main thread has
entered is finished (drained and deregistered) while its body still runs. Then the signal has the effect that it had
before the first block was entered: a function of the program is called, SIGINT raises KeyboardInterrupt or cancels the
task that asyncio.run runs. SIGTERM, which would kill the process, ends the bodies: a task is cancelled, and
`Terminated` is raised in the main thread, so that the process cleans up and exits with status 143. A second signal has
its effect at once; a second SIGTERM kills.

Signals that are ignored, and those that an event loop handles (`loop.add_signal_handler`), are left alone: such a
program ends its blocks itself. Only a block that the main thread enters hears signals, for Python calls signal handlers
only there.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from enum import Enum
from types import FrameType
from typing import Any, Final

from adsum.client.registration.signal_interceptor import SignalInterceptor

MIN_HANDLER_CHECK_PAUSE, MAX_HANDLER_CHECK_PAUSE = 0.1, 5.0
"""Seconds between looks whether a server that runs in a block has installed a signal handler of its own since: ours
must be called first. Each pause is twice the one before; a signal that comes earlier stops the server undrained."""
EVENT_LOOP_MODULES: Final = ("asyncio", "uvloop")
"""Modules whose signal handlers stand for those that an event loop calls by itself, whatever we install above them."""


class Terminated(SystemExit):
    """SIGTERM ends the process; its exit status is 143, that is 128 and the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class TerminationStage(Enum):
    """How far the end has come."""

    RUNNING = "running"
    FINISHING = "finishing"
    """A signal came, and the blocks are being finished."""
    FINISHED = "finished"
    """The blocks are finished; the signal takes effect."""
    ENDING = "ending"
    """The bodies were told to end."""


class RegistrationBlock:
    """One registrar that is entered: how to finish it, and how its body is ended.

    `finish` begins to drain and deregister and is over within `timeout` seconds. `task` runs the body; None: the main
    thread does, without an event loop.
    """

    def __init__(self, shut_down: Callable[[], Future[None]], task: asyncio.Task[Any] | None, timeout: float) -> None:
        self.shut_down = shut_down
        self.timeout = timeout
        self.body_ended = False
        """The body has ended: there is nothing left to interrupt."""
        self._task = task
        self._interrupted = 0
        """The signal that ends the body, or 0."""
        self._cancelled = False
        """The task was told so: a body that goes on all the same goes on."""
        self._looking: asyncio.TimerHandle | None = None
        self._entered = False

    def enter(self) -> None:
        """Hear signals from now on, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._entered = True
            _termination.enter(self)
            if self._task is not None:
                self._look(MIN_HANDLER_CHECK_PAUSE)

    def ended_by_second_signal(self, error: BaseException | None) -> bool:
        """Whether a second signal ended the body, before the first one's drain was over. Call it as the body ends."""
        self.body_ended = True
        interrupted = self._entered and isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
        return interrupted and _termination.stage is TerminationStage.FINISHING

    def leave(self, error: BaseException | None) -> None:
        """Hear no more signals; `error` ended the body. Raises `Terminated` if SIGTERM is to end the process."""
        if not self._entered:
            return
        self._entered = False
        if self._looking is not None:
            self._looking.cancel()
        owed = _termination.leave(self)
        if self._cancelled and self._task is not None and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise Terminated(self._interrupted) from None
        owed = owed or (0 if self._cancelled else self._interrupted)
        if owed and (error is None or isinstance(error, asyncio.CancelledError)):
            raise Terminated(owed)

    def interrupt(self, number: int) -> bool:
        """End the body; False if only an exception in the main thread can do that."""
        if self._task is None or self._task.done():
            return False
        self._interrupted = number
        self._task.get_loop().call_soon_threadsafe(self._cancel)
        return True

    def _cancel(self) -> None:
        if self._task is not None and not self.body_ended:
            self._cancelled = True
            self._task.cancel()

    def _look(self, pause: float) -> None:
        """Have our handler called first where a server in the body has installed another one, now and later."""
        _termination.reclaim_handlers()
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(pause, self._look, min(2 * pause, MAX_HANDLER_CHECK_PAUSE))


def task_block(shut_down: Callable[[], Coroutine[Any, Any, None]], timeout: float) -> RegistrationBlock:
    """A block whose body the current task runs."""
    loop = asyncio.get_running_loop()
    return RegistrationBlock(
        lambda: asyncio.run_coroutine_threadsafe(shut_down(), loop), asyncio.current_task(), timeout
    )


def thread_block(shut_down: Callable[[], Future[None]], timeout: float) -> RegistrationBlock:
    """A block whose body runs without an event loop; `finish` begins on another thread."""
    return RegistrationBlock(shut_down, None, timeout)


class Termination:
    """The end of one process: the blocks that are entered, and the signal handlers while there are any."""

    def __init__(self) -> None:
        self.stage = TerminationStage.RUNNING
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._blocks: list[RegistrationBlock] = []
        self._layers: list[SignalInterceptor] = []
        """Our handlers, each above one that was there before; the last one is called first."""
        self._unfinished = 0
        self._resume: Callable[[], None] | None = None
        self._timer: threading.Timer | None = None
        self._owed = 0

    def enter(self, block: RegistrationBlock) -> None:
        """Only in the main thread, as all but `_finished` and `_overdue`."""
        self._blocks.append(block)
        if len(self._blocks) == 1:
            self.stage, self._owed = TerminationStage.RUNNING, 0
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._end)
            self._add_layer([signal.SIGTERM] * _is_functions(signal.SIGTERM) + [signal.SIGINT] * _is_pythons())

    def leave(self, block: RegistrationBlock) -> int:
        """The signal that has still to end the process, or 0. With the last block the handlers are as they were."""
        if block not in self._blocks or os.getpid() != self._pid:
            return 0
        with self._lock:
            self._blocks.remove(block)
            if self._blocks:
                return 0
            self._resume = None
        if self._timer is not None:
            self._timer.cancel()
        return self._uninstall()

    def reclaim_handlers(self) -> None:
        """Be called first again, where the program has installed a handler for SIGTERM since."""
        current = signal.getsignal(signal.SIGTERM)
        ours = [self._end, *(layer.handler for layer in self._layers)]
        if self.stage is TerminationStage.RUNNING and current not in ours and _is_functions(signal.SIGTERM):
            self._add_layer([signal.SIGTERM])

    def _add_layer(self, numbers: Sequence[int]) -> None:
        layer = SignalInterceptor(numbers, self._first)
        layer.install()
        self._layers.append(layer)

    def _uninstall(self) -> int:
        layers, self._layers = self._layers, []
        for layer in reversed(layers):
            layer.remove()
        if signal.getsignal(signal.SIGTERM) == self._end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in set[int]().union(*(layer.pending for layer in layers)):
            if signal.getsignal(number) is signal.SIG_DFL:
                self._owed = number
            else:
                signal.raise_signal(number)
        return self._owed

    def _first(self, resume: Callable[[], None], _final: bool) -> None:
        """A signal came: finish the blocks, then let it have its effect."""
        if self.stage is not TerminationStage.RUNNING:
            resume()
            return
        if not self._blocks:  # The last one is just left: the signal is owed.
            return
        self.stage, self._resume = TerminationStage.FINISHING, resume
        blocks = list(self._blocks)
        self._unfinished = len(blocks)
        self._timer = threading.Timer(max(block.timeout for block in blocks), self._overdue)
        self._timer.daemon = True
        self._timer.start()
        for block in blocks:
            try:
                block.shut_down().add_done_callback(self._finished)
            except RuntimeError:  # The client or the loop is closed: there is nothing to finish.
                self._finished()

    def _finished(self, _: object = None) -> None:
        with self._lock:
            self._unfinished -= 1
            if self._unfinished == 0 and self._resume is not None:
                self.stage = TerminationStage.FINISHED
                self._take_effect()

    def _overdue(self) -> None:
        """The event loop of a body hangs, so nothing is finished: SIGTERM kills."""
        with self._lock:
            self._take_effect()

    def _take_effect(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()

    def _end(self, number: int, _: FrameType | None) -> None:
        """What SIGTERM does where it would kill the process."""
        if os.getpid() != self._pid or self.stage is not TerminationStage.FINISHED:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            os._exit(128 + number)  # The first process of a container is not killed by signals of its own.
        self.stage = TerminationStage.ENDING
        staying = [block for block in self._blocks if not block.body_ended]
        if not staying:
            self._owed = number
            return
        interrupted = [block.interrupt(number) for block in staying]
        if not all(interrupted):
            raise Terminated(number)


def _is_functions(number: int) -> bool:
    """Whether a function of Python handles it that no event loop calls by itself."""
    handler = signal.getsignal(number)
    return callable(handler) and str(getattr(handler, "__module__", "")).partition(".")[0] not in EVENT_LOOP_MODULES


def _is_pythons() -> bool:
    """Whether SIGINT does what Python has it do: raise KeyboardInterrupt, or cancel what asyncio.run runs."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, functools.partial):
        return isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)
    return handler is signal.default_int_handler


_termination = Termination()


def _begin_in_child() -> None:
    global _termination
    _termination = Termination()


os.register_at_fork(after_in_child=_begin_in_child)
