"""The process of the wrapped program: started in a process group of its own, signalled, reaped. It never outlives its
wrapper.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from adsum import launcher
from adsum.core.errors import AdsumError

EXIT_NOT_FOUND: Final = 127
EXIT_NOT_EXECUTABLE: Final = 126
SIGNAL_EXIT_BASE: Final = 128
"""Exit codes as in shells: not found, not executable, and the base 128 + n for a program that signal n ended."""

_PR_SET_CHILD_SUBREAPER: Final = 36


class CannotStart(AdsumError):
    """The program does not exist or can't be executed; `code` is the exit code that a shell would use."""

    def __init__(self, program: str, reason: str, code: int) -> None:
        super().__init__(f"can't start {program}: {reason}")
        self.code = code


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """The end of a program: its exit code, or the signal that killed it."""

    status: int
    """The exit code, or the negative number of the signal."""

    @property
    def code(self) -> int:
        """The exit code that a shell would use."""
        return self.status if self.status >= 0 else SIGNAL_EXIT_BASE - self.status

    def __str__(self) -> str:
        return f"exited with code {self.status}" if self.status >= 0 else f"was killed by {signal_name(-self.status)}"


class ChildProcess:
    """A running program. Make it in a running event loop; `ended` is done when the program has ended and is reaped."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start the program. Raises `CannotStart`."""
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ExitStatus] = loop.create_future()
        _adopt_orphans()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            self._process = launcher.start(argv, env=environ)
        except FileNotFoundError:
            reason = "its interpreter was not found" if os.path.exists(argv[0]) else "no such program"  # noqa: PTH110
            raise CannotStart(argv[0], reason, EXIT_NOT_FOUND) from None
        except OSError as error:
            raise CannotStart(argv[0], error.strerror or str(error), EXIT_NOT_EXECUTABLE) from None
        self.pid = self._process.pid

    def signal(self, number: int) -> None:
        """Send the program a signal; does nothing if it has ended."""
        if not self.ended.done():
            os.kill(self.pid, number)

    def signal_group(self, number: int) -> bool:
        """Send a signal to the program's process group; returns whether the group has a process."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _reap(self) -> None:
        """Reap every child that has ended, adopted orphans included, as process 1 must."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self._process.returncode = os.waitstatus_to_exitcode(status)
                    self.ended.set_result(ExitStatus(self._process.returncode))


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as SIGTERM; its number if it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _adopt_orphans() -> None:
    """Become the parent of the program's orphans (a subreaper), so that they are reaped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
