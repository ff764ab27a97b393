"""The wrapped program as a process: started in a group of its own, signalled, reaped; it never outlives us."""

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
"""Exit codes as shells have them; a program that signal n ended has 128 + n."""

_PR_SET_CHILD_SUBREAPER: Final = 36


class CannotStart(AdsumError):
    """There is no such program, or it can't be executed; `code` is what a shell would exit with."""

    def __init__(self, program: str, why: str, code: int) -> None:
        super().__init__(f"can't start {program}: {why}")
        self.code = code


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended: its exit code, or the signal that killed it."""

    status: int
    """The exit code; below 0 the negative number of the signal."""

    @property
    def code(self) -> int:
        """What a shell would exit with."""
        return self.status if self.status >= 0 else SIGNAL_EXIT_BASE - self.status

    def __str__(self) -> str:
        return f"exited with code {self.status}" if self.status >= 0 else f"was killed by {signal_name(-self.status)}"


class ChildProcess:
    """A running program. Made in a running loop; `ended` is done when it is over, and it has been reaped."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it. Raises `CannotStart`."""
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ExitStatus] = loop.create_future()
        _adopt_orphans()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            self._process = launcher.start(argv, env=environ)
        except FileNotFoundError:
            why = "its interpreter was not found" if os.path.exists(argv[0]) else "no such program"  # noqa: PTH110
            raise CannotStart(argv[0], why, EXIT_NOT_FOUND) from None
        except OSError as error:
            raise CannotStart(argv[0], error.strerror or str(error), EXIT_NOT_EXECUTABLE) from None
        self.pid = self._process.pid

    def signal(self, number: int) -> None:
        """Pass a signal on; nothing happens once it has ended."""
        if not self.ended.done():
            os.kill(self.pid, number)

    def signal_group(self, number: int) -> bool:
        """Signal it and whatever it has left behind in its group; whether there is anything."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _reap(self) -> None:
        """Collect every child of ours that has ended: as process 1, those that others left behind, too."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self._process.returncode = os.waitstatus_to_exitcode(status)
                    self.ended.set_result(ExitStatus(self._process.returncode))


def signal_name(number: int) -> str:
    """SIGTERM and the like; the number for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _adopt_orphans() -> None:
    """What the program leaves behind becomes our child, as it would under process 1, and is reaped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
