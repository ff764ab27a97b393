"""One Envoy as a child process: starts it, reads its output, signals it and reaps it. It never outlives us."""

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
from adsum.envoy.process.envoy_log import CREDENTIAL_REFUSALS, EnvoyLog

REAP_INTERVAL: Final = 0.01
"""Seconds between two attempts to reap the process once its output has ended."""
READ_SIZE: Final = 65_536
"""Bytes of its logs that are read at a time."""


class EnvoyProcess:
    """A running Envoy. `exited` yields its exit code; a negative one is the number of the signal that ended it."""

    def __init__(self, argv: Sequence[str | Path], folder: Path, access_log: AccessLog) -> None:
        """Starts the process in that folder; needs a running loop. Its standard error goes to our log."""
        self._process = subprocess.Popen(  # noqa: S603 - running Envoy is this module's purpose
            launcher.command(argv, raise_file_limit=True),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._access_log_lines = LineSplitter(access_log)
        self._log = EnvoyLog()
        self.pid = self._process.pid
        self.exited: asyncio.Task[int] = asyncio.create_task(self._read_output())

    @property
    def running(self) -> bool:
        """True until the process has exited and its output has been read."""
        return not self.exited.done()

    @property
    def refusal(self) -> str:
        """The reason with which the registry last ended this Envoy's stream of resources; "" if it never did."""
        return self._log.refusal

    @property
    def refuses_credentials(self) -> bool:
        """True if the reason of that refusal is that the registry does not accept this gateway's identity."""
        return self._log.refusal_code in CREDENTIAL_REFUSALS

    @property
    def refused_at(self) -> float:
        """The time of that refusal, on the monotonic clock."""
        return self._log.refused_at

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless the process has exited."""
        self._log.stopping = True  # Every signal that we send ends it.
        if self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, timeout: float) -> int:
        """Sends SIGTERM, and SIGKILL after `timeout` seconds. Returns the exit code."""
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self.exited)
        return await self.kill()

    async def kill(self) -> int:
        """Sends SIGKILL, so that it can't signal other Envoys before it exits. Returns the exit code."""
        self.signal(signal.SIGKILL)
        return await asyncio.shield(self.exited)

    def exit_summary(self) -> str:
        """Returns the exit code or signal and the last error, as a clause."""
        code = self.exited.result() if self.exited.done() else 0
        how = f"exit code {code}" if code >= 0 else _signal_name(-code)
        return f"{how}: {self._log.errors[-1]}" if self._log.errors else how

    async def _read_output(self) -> int:
        out, err = self._process.stdout, self._process.stderr
        await asyncio.gather(_read(out, self._access_log_lines.feed), _read(err, self._log.feed))
        # Its output has ended, so it has exited or will in a moment.
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - an event would need asyncio's child watcher
            await asyncio.sleep(REAP_INTERVAL)
        return code


async def _read(pipe: IO[bytes] | None, feed: Callable[[bytes], None]) -> None:
    """Feeds each chunk as it comes, and an empty one at the end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        while chunk := await reader.read(READ_SIZE):
            feed(chunk)
    finally:
        transport.close()
    feed(b"")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
