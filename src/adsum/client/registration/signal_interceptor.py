"""Intercepts signals, so that something can be done before they take effect."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any


class SignalInterceptor:
    """Calls `on_signal(resume, kills)` when a signal arrives. After `resume()` the signal has its usual effect.

    `kills`: that effect ends the process at once, without cleaning up. A second signal has its effect without waiting.
    """

    def __init__(self, signals: Iterable[int], on_signal: Callable[[Callable[[], None], bool], None]) -> None:
        self._signals = tuple(signals)
        self._on_signal = on_signal
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._received: set[int] = set()
        self._passed_on: set[int] = set()

    def install(self) -> bool:
        """Installs the handlers. Signals that are ignored, as under nohup, or handled outside Python are left alone.

        Returns False if it installed none. That is always so outside the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            return False
        for number in self._signals:
            previous = signal.getsignal(number)
            if previous not in (None, signal.SIG_IGN):
                self._previous[number] = previous
                signal.signal(number, self._handle)
        return bool(self._previous)

    def remove(self) -> None:
        """Restores the previous handlers, except where another one was installed since."""
        if threading.current_thread() is threading.main_thread():
            for number, previous in self._previous.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, previous)

    @property
    def handler(self) -> Callable[[int, FrameType | None], None]:
        """The function that is called when a signal arrives."""
        return self._handle

    @property
    def pending(self) -> set[int]:
        """Signals that arrived and have not taken effect yet."""
        return self._received - self._passed_on

    def _handle(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if os.getpid() == self._pid and number not in self._received:
            self._received.add(number)
            self._on_signal(lambda: self._resume(number), previous is signal.SIG_DFL)
            return
        self._passed_on.add(number)
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _resume(self, number: int) -> None:
        """Sends the signal again, so that the main thread passes it on. Works from any thread."""
        if number not in self._passed_on:
            os.kill(self._pid, number)
