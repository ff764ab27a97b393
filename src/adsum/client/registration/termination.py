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

from adsum.client.registration.signal_interceptor import Before

FIRST_LOOK, LONGEST_LOOK = 0.1, 5.0
"""Seconds between looks whether a server that runs in a block has installed a signal handler of its own since: ours
must be called first. Each pause is twice the one before; a signal that comes earlier stops the server undrained."""
LOOPS: Final = ("asyncio", "uvloop")
"""Modules whose signal handlers stand for those that an event loop calls by itself, whatever we install above them."""


class Terminated(SystemExit):
    """SIGTERM ends the process; its exit status is 143, that is 128 and the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Stage(Enum):
    """How far the end has come."""

    RUNNING = "running"
    FINISHING = "finishing"
    """A signal came, and the blocks are being finished."""
    FINISHED = "finished"
    """The blocks are finished; the signal takes effect."""
    ENDING = "ending"
    """The bodies were told to end."""


class Block:
    """One registrar that is entered: how to finish it, and how its body is ended.

    `finish` begins to drain and deregister and is over within `patience` seconds. `task` runs the body; None: the main
    thread does, without an event loop.
    """

    def __init__(self, finish: Callable[[], Future[None]], task: asyncio.Task[Any] | None, patience: float) -> None:
        self.finish = finish
        self.patience = patience
        self.leaving = False
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
                self._look(FIRST_LOOK)

    def hurried(self, error: BaseException | None) -> bool:
        """Whether a second signal ended the body, before the first one's drain was over. Call it as the body ends."""
        self.leaving = True
        interrupted = self._entered and isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
        return interrupted and _termination.stage is Stage.FINISHING

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
        if self._task is not None and not self.leaving:
            self._cancelled = True
            self._task.cancel()

    def _look(self, pause: float) -> None:
        """Have our handler called first where a server in the body has installed another one, now and later."""
        _termination.look()
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(pause, self._look, min(2 * pause, LONGEST_LOOK))


def task_block(finish: Callable[[], Coroutine[Any, Any, None]], patience: float) -> Block:
    """A block whose body the current task runs."""
    loop = asyncio.get_running_loop()
    return Block(lambda: asyncio.run_coroutine_threadsafe(finish(), loop), asyncio.current_task(), patience)


def thread_block(finish: Callable[[], Future[None]], patience: float) -> Block:
    """A block whose body runs without an event loop; `finish` begins on another thread."""
    return Block(finish, None, patience)


class Termination:
    """The end of one process: the blocks that are entered, and the signal handlers while there are any."""

    def __init__(self) -> None:
        self.stage = Stage.RUNNING
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._blocks: list[Block] = []
        self._layers: list[Before] = []
        """Our handlers, each above one that was there before; the last one is called first."""
        self._unfinished = 0
        self._resume: Callable[[], None] | None = None
        self._timer: threading.Timer | None = None
        self._owed = 0

    def enter(self, block: Block) -> None:
        """Only in the main thread, as all but `_finished` and `_overdue`."""
        self._blocks.append(block)
        if len(self._blocks) == 1:
            self.stage, self._owed = Stage.RUNNING, 0
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._end)
            self._add_layer([signal.SIGTERM] * _is_functions(signal.SIGTERM) + [signal.SIGINT] * _is_pythons())

    def leave(self, block: Block) -> int:
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

    def look(self) -> None:
        """Be called first again, where the program has installed a handler for SIGTERM since."""
        current = signal.getsignal(signal.SIGTERM)
        ours = [self._end, *(layer.handler for layer in self._layers)]
        if self.stage is Stage.RUNNING and current not in ours and _is_functions(signal.SIGTERM):
            self._add_layer([signal.SIGTERM])

    def _add_layer(self, numbers: Sequence[int]) -> None:
        layer = Before(numbers, self._first)
        layer.install()
        self._layers.append(layer)

    def _uninstall(self) -> int:
        layers, self._layers = self._layers, []
        for layer in reversed(layers):
            layer.remove()
        if signal.getsignal(signal.SIGTERM) == self._end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in set[int]().union(*(layer.owed for layer in layers)):
            if signal.getsignal(number) is signal.SIG_DFL:
                self._owed = number
            else:
                signal.raise_signal(number)
        return self._owed

    def _first(self, resume: Callable[[], None], _final: bool) -> None:
        """A signal came: finish the blocks, then let it have its effect."""
        if self.stage is not Stage.RUNNING:
            resume()
            return
        if not self._blocks:  # The last one is just left: the signal is owed.
            return
        self.stage, self._resume = Stage.FINISHING, resume
        blocks = list(self._blocks)
        self._unfinished = len(blocks)
        self._timer = threading.Timer(max(block.patience for block in blocks), self._overdue)
        self._timer.daemon = True
        self._timer.start()
        for block in blocks:
            try:
                block.finish().add_done_callback(self._finished)
            except RuntimeError:  # The client or the loop is closed: there is nothing to finish.
                self._finished()

    def _finished(self, _: object = None) -> None:
        with self._lock:
            self._unfinished -= 1
            if self._unfinished == 0 and self._resume is not None:
                self.stage = Stage.FINISHED
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
        if os.getpid() != self._pid or self.stage is not Stage.FINISHED:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            os._exit(128 + number)  # The first process of a container is not killed by signals of its own.
        self.stage = Stage.ENDING
        staying = [block for block in self._blocks if not block.leaving]
        if not staying:
            self._owed = number
            return
        interrupted = [block.interrupt(number) for block in staying]
        if not all(interrupted):
            raise Terminated(number)


def _is_functions(number: int) -> bool:
    """Whether a function of Python handles it that no event loop calls by itself."""
    handler = signal.getsignal(number)
    return callable(handler) and str(getattr(handler, "__module__", "")).partition(".")[0] not in LOOPS


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
