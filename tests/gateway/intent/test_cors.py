from __future__ import annotations

from adsum.gateway.intent.cors import Cors


def test_origins_below_a_wildcard_are_allowed() -> None:
    cors = Cors(("https://*.shop.example", "http://localhost:3000"))
    assert cors.allows("https://a.b.shop.example")
    assert cors.allows("http://localhost:3000")
    assert not cors.allows("https://shop.example")
    assert not cors.allows("http://a.shop.example")
    assert not cors.allows("https://a.shop.example.evil")
    assert not cors.allows("https://evil/.shop.example")
