"""A second worker of the same server, in a process of its own: workers coordinate by locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from adsum.integrations.worker_group import WorkerGroup
workers = WorkerGroup("orders", int(sys.argv[1]), Path(sys.argv[2]))
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class SecondWorker:
    """Calls methods of its `WorkerGroup` on request."""

    def __init__(self, port: int, folder: Path) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, method: str) -> bool:
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(f"workers.{method}()\n")
        self._running.stdin.flush()
        return self._running.stdout.readline().strip() == "True"

    def kill(self) -> None:
        self._running.kill()
        self._running.communicate()
