"""Something to be done first when a signal tells this process to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any


class SignalInterceptor:
    """On a signal calls `first(resume, final)`; once `resume()` is called, what would have happened happens.

    `final` says that the process will end at once then, without any cleaning up. A second signal does not wait. Only
    the main thread can do this: `install` says whether it did.
    """

    def __init__(self, signals: Iterable[int], on_signal: Callable[[Callable[[], None], bool], None]) -> None:
        self._signals = tuple(signals)
        self._first = on_signal
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._told: set[int] = set()
        self._passed_on: set[int] = set()

    def install(self) -> bool:
        """What is ignored, as under nohup, stays ignored; what is handled outside Python stays so."""
        if threading.current_thread() is not threading.main_thread():
            return False
        for number in self._signals:
            previous = signal.getsignal(number)
            if previous not in (None, signal.SIG_IGN):
                self._previous[number] = previous
                signal.signal(number, self._hear)
        return bool(self._previous)

    def remove(self) -> None:
        """Have everything as it was, where nobody has changed it since."""
        if threading.current_thread() is threading.main_thread():
            for number, previous in self._previous.items():
                if signal.getsignal(number) == self._hear:
                    signal.signal(number, previous)

    @property
    def handler(self) -> Callable[[int, FrameType | None], None]:
        """What is called when a signal comes."""
        return self._hear

    @property
    def pending(self) -> set[int]:
        """Signals that came and have not had their effect yet."""
        return self._told - self._passed_on

    def _hear(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if os.getpid() == self._pid and number not in self._told:
            self._told.add(number)
            self._first(lambda: self._resume(number), previous is signal.SIG_DFL)
            return
        self._passed_on.add(number)
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _resume(self, number: int) -> None:
        """From any thread: the signal comes again, in the main thread, and is passed on."""
        if number not in self._passed_on:
            os.kill(self._pid, number)
