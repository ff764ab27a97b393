"""Hashes that are the same in every process and on every machine, so that consumers of a hash policy agree."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

_EIGHT = Struct("<8Q")
_TWO = Struct("<2Q")
_UNIT = 2.0**-64


def hash64(key: bytes | str) -> int:
    """Returns the 64-bit hash of a key. Text is hashed as UTF-8."""
    raw = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def ring_position(key: bytes | str) -> float:
    """Returns the position of a key on a ring from 0.0 to 1.0."""
    return hash64(key) * _UNIT


def ring_positions(id: str, count: int) -> list[float]:
    """Returns the first `count` positions of an endpoint on the ring; each hash yields eight of the series."""
    raw = id.encode()
    numbers: list[int] = []
    for block in range((count + 7) // 8):
        numbers += _EIGHT.unpack(blake2b(raw, digest_size=64, salt=block.to_bytes(8, "little")).digest())
    return [number * _UNIT for number in numbers[:count]]


def hash_pair(id: str) -> tuple[int, int]:
    """Returns two independent 64-bit hashes of an endpoint's id."""
    first, second = _TWO.unpack(blake2b(id.encode(), digest_size=16).digest())
    return first, second
