"""One Envoy as a process: started, heard, signalled, reaped; it never outlives us."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from adsum import launcher
from adsum.envoy.process.access_log import AccessLog, LineSplitter
from adsum.envoy.process.envoy_log import EnvoyLog

REAP_INTERVAL: Final = 0.01
"""Seconds between two looks whether it can be reaped."""
READ_SIZE: Final = 65_536
"""Bytes of its logs that are read at a time."""


class EnvoyProcess:
    """A running Envoy. `ended` is its exit code once it is over: below 0 the negative number of the signal."""

    def __init__(self, argv: Sequence[str | Path], folder: Path, access_log: AccessLog) -> None:
        """Start it in that folder, in a running loop. What it writes to standard error goes into our log."""
        self._process = subprocess.Popen(  # noqa: S603 - running it is what we are for
            launcher.command(argv, raise_file_limit=True),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._accesses = LineSplitter(access_log)
        self._lines = EnvoyLog()
        self.pid = self._process.pid
        self.exited: asyncio.Task[int] = asyncio.create_task(self._hear())

    @property
    def running(self) -> bool:
        return not self.exited.done()

    @property
    def refusal(self) -> str:
        """Why the registry ended its stream of resources last; "" if it never did."""
        return self._lines.refusal

    @property
    def refused_at(self) -> float:
        """When it did, on the monotonic clock."""
        return self._lines.refused_at

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens once it has ended."""
        self._lines.stopping = True  # We send none that it outlives.
        if self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, timeout: float) -> int:
        """Terminate it at once, kill it after `timeout` seconds; how it ended."""
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self.exited)
        return await self.kill()

    async def kill(self) -> int:
        """End it without a chance to tell others to end; how it ended."""
        self.signal(signal.SIGKILL)
        return await asyncio.shield(self.exited)

    def exit_summary(self) -> str:
        """How it ended and what it said last, in a clause."""
        code = self.exited.result() if self.exited.done() else 0
        how = f"exit code {code}" if code >= 0 else _name(-code)
        return f"{how}: {self._lines.errors[-1]}" if self._lines.errors else how

    async def _hear(self) -> int:
        out, err = self._process.stdout, self._process.stderr
        await asyncio.gather(_read(out, self._accesses.feed), _read(err, self._lines.feed))
        # It has nothing more to say: it is over, or will be in a moment.
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - the system tells only a loop with watchers
            await asyncio.sleep(REAP_INTERVAL)
        return code


async def _read(pipe: IO[bytes] | None, feed: Callable[[bytes], None]) -> None:
    """Feed what comes, and an empty chunk at its end."""
    words = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), pipe)
    try:
        while chunk := await words.read(READ_SIZE):
            feed(chunk)
    finally:
        transport.close()
    feed(b"")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
