"""How many callers an Envoy can hold with the files that the system lets it open. Pure."""

from __future__ import annotations

from typing import Final

RESERVE: Final = 64
"""Files that an Envoy has open or may need beside its workers' and its connections: its log, its admin socket, the
registry, whoever reads its metrics. Measured: 26 are open at rest."""
OF_A_WORKER: Final = 8
"""Files of each worker thread, without its listening sockets. Measured: 4."""
OF_A_CALLER: Final = 2
"""Files for each connection of a caller: its own, and one to an instance. A caller that is taken in and whose instance
can't be reached for want of a file would be answered 503."""


def most_connections(files: int, workers: int, listeners: int) -> int:
    """Callers' connections that there is room for, if any; each worker has a socket of each listener."""
    return (files - RESERVE - workers * (OF_A_WORKER + listeners)) // OF_A_CALLER


def fewest_files(workers: int, listeners: int) -> int:
    """The files that one connection needs."""
    return RESERVE + workers * (OF_A_WORKER + listeners) + OF_A_CALLER
