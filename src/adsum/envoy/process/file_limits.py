"""Computes how many client connections an Envoy can hold with the files that the system lets it open. Pure."""

from __future__ import annotations

from typing import Final

RESERVED_FILES: Final = 64
"""Files that an Envoy has open or may need besides those of its workers and connections: its log, its admin socket, the
connection to the registry, metrics scrapers. Measured: 26 are open at rest."""
FILES_PER_WORKER: Final = 8
"""Files of each worker thread, without its listening sockets. Measured: 4."""
FILES_PER_CONNECTION: Final = 2
"""Files for each client connection: its own, and one to an instance. If only the first could be opened, the client
would get 503."""


def max_connections(files: int, workers: int, listeners: int) -> int:
    """Returns how many client connections fit; 0 or less if none does. Each worker has one socket per listener."""
    return (files - RESERVED_FILES - workers * (FILES_PER_WORKER + listeners)) // FILES_PER_CONNECTION


def min_files(workers: int, listeners: int) -> int:
    """Returns the number of files that a single client connection needs."""
    return RESERVED_FILES + workers * (FILES_PER_WORKER + listeners) + FILES_PER_CONNECTION
