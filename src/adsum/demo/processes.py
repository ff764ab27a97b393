"""The demo's processes: started, watched, and stopped by their ids in every case."""

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
"""Seconds that all processes together have to end; then they are killed."""
POLL: Final = 0.05
MAX_LAST_LINE: Final = 300
"""Characters of what a process said last, for the sentence that tells why it ended."""


class DemoFailed(AdsumError):
    """Something of the demo did not work; the sentence says what."""


class DemoProcess:
    """One of them. `log` is where it says what it says."""

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
        """Send it a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    async def ended(self) -> None:
        """Return when it is over."""
        while self.running:  # noqa: ASYNC110 - it is not our event loop's child
            await asyncio.sleep(POLL)

    def wait(self) -> None:
        """Reap it; it has been killed or has ended."""
        self._process.wait()

    def describe_exit(self) -> str:
        """How it ended and what it said last, in a clause."""
        code = self._process.returncode
        how = f"exit code {code}" if code is not None and code >= 0 else signal_name(-(code or 0))
        said = self.log.read_text(errors="replace").strip().splitlines()
        return f"{how}; it said last: {said[-1][-MAX_LAST_LINE:]}" if said else how


class ProcessGroup:
    """All that were started. `close` leaves none."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._started: list[DemoProcess] = []
        self._expected: set[DemoProcess] = set()

    def start(self, name: str, argv: Sequence[str], **environ: str) -> DemoProcess:
        """Start one. Raises `DemoFailed` if the system does not let us."""
        try:
            process = DemoProcess(name, argv, {**self._environ, **environ}, self._folder / f"{name}.log")
        except OSError as error:
            raise DemoFailed(f"{name} can't be started: {error.strerror or error}") from None
        self._started.append(process)
        return process

    def kill(self, process: DemoProcess) -> None:
        """As a crash of the machine would: nobody says good-bye."""
        self._expected.add(process)
        process.signal(signal.SIGKILL)

    def stop(self, process: DemoProcess) -> None:
        """As a deploy would."""
        self._expected.add(process)
        process.signal(signal.SIGTERM)

    def check_running(self) -> None:
        """Raises `DemoFailed` if one has ended that should not have."""
        for process in self._started:
            if process not in self._expected and not process.running:
                raise DemoFailed(f"{process.name} has ended by itself: {process.describe_exit()}")

    async def close(self) -> None:
        """Stop them all, the latest first and the first (the registry) last; kill what does not end in time."""
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
    """That of a fresh machine: none of our user's settings."""
    settings = folder / "adsum.toml"
    settings.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADSUM_", "XDG_"))}
    return {**kept, "ADSUM_URL": url, "ADSUM_CONFIG": str(settings), "PYTHONUNBUFFERED": "1"}
