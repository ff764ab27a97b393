from __future__ import annotations

from adsum.dialects.native.pages.byte_cache import ByteCache


def test_a_byte_cache_keeps_the_values_used_last_within_its_limit() -> None:
    cache = ByteCache(10)
    made: list[str] = []

    def get(key: str, size: int = 4) -> None:
        def make() -> bytes:
            made.append(key)
            return b"x" * size

        cache.get(key, make)

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    get("huge", 11)
    get("huge", 11)
    assert made[-2:] == ["huge", "huge"]
    assert len(cache) == 2
