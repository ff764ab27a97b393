"""The memory that request bodies take, from their first byte until their request is answered."""

from __future__ import annotations

from typing import Final

from adsum.core.errors import Overloaded

MAX_BODY_MEMORY: Final = 256 * 1024 * 1024
"""Bytes of the bodies of all requests that are under way; past it a request whose body goes on is refused with 503."""


class BodyMemory:
    """Counts them."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes that are held now."""

    def reserve(self, size: int) -> None:
        """So many bytes more came. Raises `Overloaded`, and holds none of them, past the bound."""
        if self.size + size > MAX_BODY_MEMORY:
            raise Overloaded("the room for request bodies")
        self.size += size

    def release(self, size: int) -> None:
        """So many bytes are let go of."""
        self.size -= size
