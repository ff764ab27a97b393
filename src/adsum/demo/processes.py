"""The processes of the demo: starts them, watches them, and stops them by their ids in every case."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum import launcher
from adsum.core.errors import AdsumError
from adsum.run.child_process import signal_name

STOP_TIMEOUT: Final = 8.0
"""Seconds for all processes together to end; then they are killed."""
POLL_INTERVAL: Final = 0.05
"""Seconds between two checks whether a process has ended."""
MAX_LAST_LINE_CHARS: Final = 300
"""Characters of the last line of a process's log that an error quotes."""


class DemoFailed(AdsumError):
    """The demo can't go on; the message says why."""


class DemoProcess:
    """A process of the demo. Its output goes to the file `log`."""

    def __init__(self, name: str, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._process = launcher.start(argv, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send the process a signal; does nothing if it has ended."""
        self._process.send_signal(number)

    async def ended(self) -> None:
        """Return when the process has ended."""
        while self.running:  # noqa: ASYNC110 - the event loop does not watch this child
            await asyncio.sleep(POLL_INTERVAL)

    def wait(self) -> None:
        """Reap the process after it was killed or has ended."""
        self._process.wait()

    def describe_exit(self) -> str:
        """Returns how the process ended and the last line of its output, as one clause."""
        code = self._process.returncode
        ending = f"exit code {code}" if code is not None and code >= 0 else signal_name(-(code or 0))
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{ending}; its last output: {lines[-1][-MAX_LAST_LINE_CHARS:]}" if lines else ending


class ProcessGroup:
    """All processes that were started; `close` stops all of them."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._started: list[DemoProcess] = []
        self._expected: set[DemoProcess] = set()

    def start(self, name: str, argv: Sequence[str], **environ: str) -> DemoProcess:
        """Start a process. Raises `DemoFailed` if the system refuses."""
        try:
            process = DemoProcess(name, argv, {**self._environ, **environ}, self._folder / f"{name}.log")
        except OSError as error:
            raise DemoFailed(f"{name} can't be started: {error.strerror or error}") from None
        self._started.append(process)
        return process

    def kill(self, process: DemoProcess) -> None:
        """Kill a process without warning, as a crash would."""
        self._expected.add(process)
        process.signal(signal.SIGKILL)

    def stop(self, process: DemoProcess) -> None:
        """Send a process SIGTERM, as a deploy does."""
        self._expected.add(process)
        process.signal(signal.SIGTERM)

    def check_running(self) -> None:
        """Raises `DemoFailed` if a process has ended that should run."""
        for process in self._started:
            if process not in self._expected and not process.running:
                raise DemoFailed(f"{process.name} ended unexpectedly: {process.describe_exit()}")

    async def close(self) -> None:
        """Stop all processes, the first one (the registry) last; kill those that do not end in time."""
        running = [process for process in reversed(self._started) if process.running]
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                for process in running[:-1]:
                    process.signal(signal.SIGTERM)
                for process in running[:-1]:
                    await process.ended()
                for process in running[-1:]:
                    process.signal(signal.SIGTERM)
                    await process.ended()
        except TimeoutError:
            pass
        finally:
            for process in running:
                with suppress(ProcessLookupError):
                    process.signal(signal.SIGKILL)
            for process in running:
                process.wait()


def clean_environment(url: str, folder: Path) -> dict[str, str]:
    """Returns an environment without any settings of the user, as on a fresh machine."""
    settings = folder / "adsum.toml"
    settings.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADSUM_", "XDG_"))}
    return {**kept, "ADSUM_URL": url, "ADSUM_CONFIG": str(settings), "PYTHONUNBUFFERED": "1"}
