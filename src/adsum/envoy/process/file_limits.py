"""How many callers an Envoy can hold with the files that the system lets it open. Pure."""

from __future__ import annotations

from typing import Final

RESERVED_FILES: Final = 64
"""Files that an Envoy has open or may need beside its workers' and its connections: its log, its admin socket, the
registry, whoever reads its metrics. Measured: 26 are open at rest."""
FILES_PER_WORKER: Final = 8
"""Files of each worker thread, without its listening sockets. Measured: 4."""
FILES_PER_CONNECTION: Final = 2
"""Files for each connection of a caller: its own, and one to an instance. A caller that is taken in and whose instance
can't be reached for want of a file would be answered 503."""


def max_connections(files: int, workers: int, listeners: int) -> int:
    """Callers' connections that there is room for, if any; each worker has a socket of each listener."""
    return (files - RESERVED_FILES - workers * (FILES_PER_WORKER + listeners)) // FILES_PER_CONNECTION


def min_files(workers: int, listeners: int) -> int:
    """The files that one connection needs."""
    return RESERVED_FILES + workers * (FILES_PER_WORKER + listeners) + FILES_PER_CONNECTION
