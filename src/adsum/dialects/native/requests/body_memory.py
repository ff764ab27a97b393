"""The memory that request bodies take, from their first byte until their request is answered."""

from __future__ import annotations

from typing import Final

from adsum.core.errors import Overloaded

MAX_INFLOW: Final = 256 * 1024 * 1024
"""Bytes of the bodies of all requests that are under way; past it a request whose body goes on is refused with 503."""


class Inflow:
    """Counts them."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes that are held now."""

    def take(self, size: int) -> None:
        """So many bytes more came. Raises `Overloaded`, and holds none of them, past the bound."""
        if self.size + size > MAX_INFLOW:
            raise Overloaded("the room for request bodies")
        self.size += size

    def give_back(self, size: int) -> None:
        """So many bytes are let go of."""
        self.size -= size
