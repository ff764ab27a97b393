"""Drains and deregisters the instances of this process when SIGTERM or SIGINT arrives, before the signal takes effect.

A registrar is entered as a block, by `with` or `async with`. On SIGTERM or SIGINT every block that the main thread has
entered is shut down (drained and deregistered) while its body still runs. Then the signal has the effect that it had
before the first block was entered: a function of the program is called, or SIGINT raises KeyboardInterrupt or cancels
the task that asyncio.run runs. A SIGTERM that would kill the process ends the bodies instead: a task is cancelled, and
`Terminated` is raised in the main thread, so that the process cleans up and exits with status 143. A second signal
takes effect at once; a second SIGTERM kills.

Signals that are ignored, and those that an event loop handles (`loop.add_signal_handler`), are left alone: such a
program ends its blocks itself. Only blocks that the main thread enters react to signals, because Python runs signal
handlers in that thread only.
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
"""Seconds, bounds of the pause between two checks whether a server in a block has installed a signal handler of its
own. Ours must be called first. Each pause is twice the one before; a signal before the check stops the server without a
drain."""
EVENT_LOOP_MODULES: Final = ("asyncio", "uvloop")
"""Modules whose Python handlers are placeholders: their event loop handles the signal itself, whatever is installed."""


class Terminated(SystemExit):
    """Raised when SIGTERM ends the process. The exit status is 143: 128 plus the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class TerminationStage(Enum):
    """The stages in which a process ends."""

    RUNNING = "running"
    FINISHING = "finishing"
    """A signal arrived, and the blocks are being shut down."""
    FINISHED = "finished"
    """The blocks are shut down; the signal takes effect."""
    ENDING = "ending"
    """The bodies are being ended."""


class RegistrationBlock:
    """A registrar's block: it can be shut down, and its body can be ended.

    `shut_down` starts draining and deregistering, which ends within `timeout` seconds. `task` runs the body; None: the
    main thread runs it, without an event loop.
    """

    def __init__(self, shut_down: Callable[[], Future[None]], task: asyncio.Task[Any] | None, timeout: float) -> None:
        self.shut_down = shut_down
        self.timeout = timeout
        self.body_ended = False
        """True if the body has ended, so that nothing is left to interrupt."""
        self._task = task
        self._interrupted = 0
        """The number of the signal that ends the body, or 0."""
        self._cancelled = False
        """True if the task was cancelled for the signal. A body that survives that goes on."""
        self._handler_check: asyncio.TimerHandle | None = None
        self._entered = False

    def enter(self) -> None:
        """Reacts to signals from now on, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._entered = True
            _termination.enter(self)
            if self._task is not None:
                self._check_handlers(MIN_HANDLER_CHECK_PAUSE)

    def ended_by_second_signal(self, error: BaseException | None) -> bool:
        """Returns whether a second signal ended the body before the drain of the first one was over.

        Called when the body has ended with `error`, or without one.
        """
        self.body_ended = True
        interrupted = self._entered and isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
        return interrupted and _termination.stage is TerminationStage.FINISHING

    def leave(self, error: BaseException | None) -> None:
        """Stops reacting to signals. `error` is the exception that ended the body.

        Raises `Terminated` if SIGTERM must end the process.
        """
        if not self._entered:
            return
        self._entered = False
        if self._handler_check is not None:
            self._handler_check.cancel()
        pending = _termination.leave(self)
        if self._cancelled and self._task is not None and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise Terminated(self._interrupted) from None
        pending = pending or (0 if self._cancelled else self._interrupted)
        if pending and (error is None or isinstance(error, asyncio.CancelledError)):
            raise Terminated(pending)

    def interrupt(self, number: int) -> bool:
        """Ends the body. Returns False if only an exception in the main thread can do that."""
        if self._task is None or self._task.done():
            return False
        self._interrupted = number
        self._task.get_loop().call_soon_threadsafe(self._cancel)
        return True

    def _cancel(self) -> None:
        if self._task is not None and not self.body_ended:
            self._cancelled = True
            self._task.cancel()

    def _check_handlers(self, pause: float) -> None:
        """Puts our handler first where a server in the body has installed its own, now and again later."""
        _termination.reclaim_handlers()
        loop = asyncio.get_running_loop()
        next_pause = min(2 * pause, MAX_HANDLER_CHECK_PAUSE)
        self._handler_check = loop.call_later(pause, self._check_handlers, next_pause)


def task_block(shut_down: Callable[[], Coroutine[Any, Any, None]], timeout: float) -> RegistrationBlock:
    """Returns a block whose body runs in the current task."""
    loop = asyncio.get_running_loop()
    return RegistrationBlock(
        lambda: asyncio.run_coroutine_threadsafe(shut_down(), loop), asyncio.current_task(), timeout
    )


def thread_block(shut_down: Callable[[], Future[None]], timeout: float) -> RegistrationBlock:
    """Returns a block whose body runs without an event loop; `shut_down` runs on another thread."""
    return RegistrationBlock(shut_down, None, timeout)


class Termination:
    """The end of one process: the blocks that are entered, and the signal handlers while there are blocks."""

    def __init__(self) -> None:
        self.stage = TerminationStage.RUNNING
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._blocks: list[RegistrationBlock] = []
        self._layers: list[SignalInterceptor] = []
        """Our handlers, each on top of one that was there before; the last is called first."""
        self._unfinished = 0
        self._resume: Callable[[], None] | None = None
        self._timer: threading.Timer | None = None
        self._pending = 0

    def enter(self, block: RegistrationBlock) -> None:
        """Adds a block. Like every method but `_finished` and `_overdue`, it is called in the main thread only."""
        self._blocks.append(block)
        if len(self._blocks) == 1:
            self.stage, self._pending = TerminationStage.RUNNING, 0
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._end)
            sigterm = [signal.SIGTERM] * _is_python_function(signal.SIGTERM)
            self._add_layer(sigterm + [signal.SIGINT] * _is_python_default())

    def leave(self, block: RegistrationBlock) -> int:
        """Removes a block; the last one restores the handlers. Returns the signal that must still take effect, or 0."""
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
        """Puts our handler first again where the program has installed another one for SIGTERM."""
        current = signal.getsignal(signal.SIGTERM)
        ours = [self._end, *(layer.handler for layer in self._layers)]
        if self.stage is TerminationStage.RUNNING and current not in ours and _is_python_function(signal.SIGTERM):
            self._add_layer([signal.SIGTERM])

    def _add_layer(self, numbers: Sequence[int]) -> None:
        layer = SignalInterceptor(numbers, self._shut_down_first)
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
                self._pending = number
            else:
                signal.raise_signal(number)
        return self._pending

    def _shut_down_first(self, resume: Callable[[], None], _kills: bool) -> None:
        """Shuts the blocks down, then lets the signal take effect."""
        if self.stage is not TerminationStage.RUNNING:
            resume()
            return
        if not self._blocks:  # The last block is being left, and `leave` returns the signal.
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
            except RuntimeError:  # The client or the event loop is closed: there is nothing to shut down.
                self._finished()

    def _finished(self, _: object = None) -> None:
        with self._lock:
            self._unfinished -= 1
            if self._unfinished == 0 and self._resume is not None:
                self.stage = TerminationStage.FINISHED
                self._take_effect()

    def _overdue(self) -> None:
        """Lets the signal take effect although the blocks are not shut down, because the loop of a body hangs."""
        with self._lock:
            self._take_effect()

    def _take_effect(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()

    def _end(self, number: int, _: FrameType | None) -> None:
        """Handles SIGTERM where it would kill the process."""
        if os.getpid() != self._pid or self.stage is not TerminationStage.FINISHED:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            os._exit(128 + number)  # The first process of a container is not killed by signals that it sends itself.
        self.stage = TerminationStage.ENDING
        running = [block for block in self._blocks if not block.body_ended]
        if not running:
            self._pending = number
            return
        interrupted = [block.interrupt(number) for block in running]
        if not all(interrupted):
            raise Terminated(number)


def _is_python_function(number: int) -> bool:
    """Returns whether a Python function handles the signal, rather than an event loop."""
    handler = signal.getsignal(number)
    return callable(handler) and str(getattr(handler, "__module__", "")).partition(".")[0] not in EVENT_LOOP_MODULES


def _is_python_default() -> bool:
    """Returns whether SIGINT has Python's own handler: it raises KeyboardInterrupt, or cancels asyncio.run's task."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, functools.partial):
        return isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)
    return handler is signal.default_int_handler


_termination = Termination()


def _reset_in_child() -> None:
    global _termination
    _termination = Termination()


os.register_at_fork(after_in_child=_reset_in_child)
