"""Looks for secrets where other users and other programs may see them: command lines, environments and logs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SCAN_INTERVAL: Final = 0.05
"""Seconds between two looks at the processes. A process that lives for a shorter time may be missed."""
SHAPES: Final = re.compile(rb"adsum-join://[^\0\s]+|adsum_[0-9a-f]{16}_[A-Za-z0-9_-]{43}|-----BEGIN [A-Z ]*PRIVATE KEY")
SECRET_FILES: Final = frozenset({"token", "admin-token", "node-token"})
KEY_FILES: Final = frozenset({"client.key", "node.key", "authority.key"})


class SecretScanner:
    """Collects, from now until `stop`, what looks like a secret in the processes of this machine."""

    def __init__(self) -> None:
        self.count = 0
        """The looks so far."""
        self._found: dict[bytes, str] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="secret-scanner", daemon=True)
        self._thread.start()

    def stop(self) -> dict[bytes, str]:
        """Returns what looks like a secret, each with the file below /proc and the program."""
        self._stopped.set()
        self._thread.join()
        return self._found

    def _run(self) -> None:
        while not self._stopped.wait(SCAN_INTERVAL):
            self.count += 1
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    self._look(process / name)

    def _look(self, file: Path) -> None:
        try:
            content = file.read_bytes()
        except OSError:  # The process has ended, or is that of another user.
            return
        for found in SHAPES.findall(content):
            self._found.setdefault(found, f"{file}: {content[:200]!r}")


def secrets_of_hosts(folder: Path, lines: Iterable[Path]) -> set[str]:
    """Returns the secrets in the files of hosts below a folder, and in join lines."""
    secrets = {line.read_text().strip().rpartition(".")[2].partition("#")[0] for line in lines}
    for file in folder.rglob("*"):
        if file.name in SECRET_FILES and file.is_file():
            secrets.add(file.read_text().strip().split("_", 2)[2])
        if file.name in KEY_FILES and file.is_file():
            secrets.add(file.read_text().splitlines()[1])
    return secrets
