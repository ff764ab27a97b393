"""Bytes that were computed once and may be asked for again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """Keeps at most `most` bytes; what was asked for longest ago goes first. A larger piece is not kept at all."""

    def __init__(self, max_bytes: int) -> None:
        self._most = max_bytes
        self._size = 0
        self._pieces: OrderedDict[Hashable, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pieces)

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The piece of that key, made if it isn't there."""
        piece = self._pieces.get(key)
        if piece is not None:
            self._pieces.move_to_end(key)
            return piece
        piece = make()
        if len(piece) <= self._most:
            self._pieces[key] = piece
            self._size += len(piece)
            while self._size > self._most:
                _, old = self._pieces.popitem(last=False)
                self._size -= len(old)
        return piece
