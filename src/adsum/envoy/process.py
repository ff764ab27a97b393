"""One Envoy as a process: started, heard, signalled, reaped; it never outlives us."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.envoy import launch
from adsum.envoy.lines import Lines

CHUNK: Final = 65_536
"""Bytes of its log that are read at a time."""


class Process:
    """A running Envoy. `ended` is its exit code once it is over: below 0 the negative number of the signal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines = Lines()
        self.pid = process.pid
        self.ended: asyncio.Task[int] = asyncio.create_task(self._hear())

    @classmethod
    async def start(cls, argv: Sequence[str | Path]) -> Process:
        """Start it: its access log goes where our standard output goes, its other words into our log."""
        # -I and -S: nothing of the environment, nothing of site-packages; it is there within milliseconds.
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        process = await asyncio.create_subprocess_exec(
            *launcher, *map(str, argv), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        return cls(process)

    @property
    def running(self) -> bool:
        return not self.ended.done()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens once it has ended."""
        self._lines.ending = True  # We send none that it outlives.
        if self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, patience: float) -> int:
        """Terminate it at once, kill it after `patience` seconds; how it ended."""
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await asyncio.shield(self.ended)
        self.signal(signal.SIGKILL)
        return await asyncio.shield(self.ended)

    def story(self) -> str:
        """How it ended and what it said last, in a clause."""
        code = self.ended.result() if self.ended.done() else 0
        how = f"exit code {code}" if code >= 0 else _name(-code)
        return f"{how}: {self._lines.errors[-1]}" if self._lines.errors else how

    async def _hear(self) -> int:
        while self._process.stderr is not None and (chunk := await self._process.stderr.read(CHUNK)):
            self._lines.feed(chunk)
        self._lines.feed(b"")
        return await self._process.wait()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
