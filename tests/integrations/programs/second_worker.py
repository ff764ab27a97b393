"""A second worker of the same server, in a process of its own: what workers share are locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OTHER = """
import sys
from pathlib import Path
from adsum.integrations.worker_group import WorkerGroup
workers = WorkerGroup("orders", int(sys.argv[1]), Path(sys.argv[2]))
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class SecondWorker:
    """Does what it is asked to do with its `WorkerGroup`."""

    def __init__(self, port: int, folder: Path) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(port), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, what: str) -> bool:
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(f"workers.{what}()\n")
        self._running.stdin.flush()
        return self._running.stdout.readline().strip() == "True"

    def kill(self) -> None:
        self._running.kill()
        self._running.communicate()
