"""A cache of encoded bytes, bounded by their size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """Keeps at most `max_bytes`, and no value that is larger. Drops the value that was used longest ago first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Returns the value of the key. `make` makes it if it is not kept."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
            return value
        value = make()
        if len(value) <= self._max_bytes:
            self._values[key] = value
            self._size += len(value)
            while self._size > self._max_bytes:
                _, dropped = self._values.popitem(last=False)
                self._size -= len(dropped)
        return value
