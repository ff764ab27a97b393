"""The memory for request bodies. A body takes it from its first byte until its request is answered."""

from __future__ import annotations

from typing import Final

from adsum.core.errors import Overloaded

MAX_BODY_MEMORY: Final = 256 * 1024 * 1024
"""Bytes of the bodies of all requests together. Past it a request whose body goes on is refused with 503."""


class BodyMemory:
    """Counts the bytes that bodies take."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes that are reserved."""

    def reserve(self, size: int) -> None:
        """Reserves so many bytes more. Past the limit reserves none, and raises `Overloaded`."""
        if self.size + size > MAX_BODY_MEMORY:
            raise Overloaded("the memory for request bodies")
        self.size += size

    def release(self, size: int) -> None:
        """Releases so many bytes."""
        self.size -= size
