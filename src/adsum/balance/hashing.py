"""Hashes that are the same in every process and on every machine: consumers of a hash policy must agree."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

_EIGHT = Struct("<8Q")
_TWO = Struct("<2Q")


def position(key: bytes | str) -> int:
    """Where a key lies: 64 bits. Text counts as its UTF-8."""
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def positions(id: str, count: int) -> list[int]:
    """Where the points of an endpoint lie: the first `count` of an endless series of 64-bit numbers, eight a hash."""
    raw = id.encode()
    series: list[int] = []
    for block in range((count + 7) // 8):
        series += _EIGHT.unpack(blake2b(raw, digest_size=64, salt=block.to_bytes(8, "little")).digest())
    del series[count:]
    return series


def pair(id: str) -> tuple[int, int]:
    """Two independent 64-bit numbers of an endpoint."""
    one, other = _TWO.unpack(blake2b(id.encode(), digest_size=16).digest())
    return one, other
