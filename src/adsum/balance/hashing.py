"""Hashes that are the same in every process and on every machine: consumers of a hash policy must agree."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

_EIGHT = Struct("<8Q")
_TWO = Struct("<2Q")
_UNIT = 2.0**-64


def hash64(key: bytes | str) -> int:
    """A key's 64 bits. Text counts as its UTF-8."""
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def ring_position(key: bytes | str) -> float:
    """Where a key lies on a ring from 0.0 to 1.0."""
    return hash64(key) * _UNIT


def ring_positions(id: str, count: int) -> list[float]:
    """Where the points of an endpoint lie on the ring: the first `count` of an endless series, eight a hash."""
    raw = id.encode()
    series: list[int] = []
    for block in range((count + 7) // 8):
        series += _EIGHT.unpack(blake2b(raw, digest_size=64, salt=block.to_bytes(8, "little")).digest())
    return [each * _UNIT for each in series[:count]]


def hash_pair(id: str) -> tuple[int, int]:
    """Two independent 64-bit numbers of an endpoint."""
    one, other = _TWO.unpack(blake2b(id.encode(), digest_size=16).digest())
    return one, other
