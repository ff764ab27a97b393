"""Writes chunks of one streaming response with as little work as possible: ten thousand of them follow one another.

The state that decides whether a chunk may be written is in one small object. What a connection knows is spread over
many, which are not in the processor's caches when its turn comes.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Final

MAX_CACHED_CHUNKS: Final = 16
"""Encoded chunks that are kept; the one that was used longest ago is dropped first."""


class ChunkWriter:
    """Implements `ports.ChunkSender` for the response that is under way on a connection."""

    __slots__ = ("_transport", "is_closed", "is_paused")

    def __init__(self, transport: asyncio.Transport, *, is_paused: bool) -> None:
        self._transport = transport
        self.is_paused = is_paused
        """True while the peer does not read."""
        self.is_closed = False
        """True once nothing more may be written."""

    def __call__(self, data: bytes) -> bool:
        transport = self._transport
        if self.is_paused or self.is_closed or transport.is_closing():
            return False
        transport.write(encode_chunk(data))
        return True

    def close(self) -> None:
        self.is_closed = True


@lru_cache(MAX_CACHED_CHUNKS)
def encode_chunk(data: bytes) -> bytes:
    """Returns the data as a chunk (RFC 9112 § 7.1). Thousands of watches get the same data."""
    return b"%x\r\n%b\r\n" % (len(data), data)
