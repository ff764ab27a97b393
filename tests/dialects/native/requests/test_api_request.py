"""Bodies that are refused before the operation runs."""

from __future__ import annotations

import pytest

from adsum import wire
from adsum.dialects.native.requests import body_memory
from tests.dialects.native.native_api import JSON, NativeApi

O1 = "/api/v1/services/orders/instances/o1"


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (O1, b'{"port": 1, "port": 2}', "port"),
        (O1, b'{"port": 1, "metadata": {"a": "1", "b": "2", "a": "3"}}', "a"),
        (O1, b'{"port": 1, "checks": [{"name": "c", "kind": "http", "headers": {"X": "1", "X": "2"}}]}', "X"),
        ("/api/v1/routes/shop", b'{"to": [{"service": "a", "service": "b"}]}', "service"),
        (O1, b'{"port": 1, "po\\u0072t": 1}', "port"),
    ],
)
async def test_a_repeated_key_is_refused_by_name(api: NativeApi, path: str, body: bytes, key: str) -> None:
    response = await api.request("PUT", path, body, JSON)
    assert (response.status, response.json["field"], response.json["detail"]) == (
        400,
        key,
        "must be given only once in an object",
    )
    assert api.registry.snapshot.revision == 0


async def test_a_repeated_key_in_a_large_body_is_refused(api: NativeApi) -> None:
    routes = ",".join(f'{{"name": "r{n}", "to": [{{"service": "orders"}}]}}' for n in range(2_000))
    body = f'{{"routes": [{routes}, {{"name": "z", "name": "y", "to": [{{"service": "orders"}}]}}]}}'.encode()
    response = await api.request("PUT", "/api/v1/intent", body, JSON)
    assert (response.status, response.json["field"]) == (400, "name")


def test_the_same_key_in_different_objects_is_allowed() -> None:
    assert wire.find_repeated_key(b'[{"a": {"a": 1}}, {"a": 1}, ' + b"9" * 5_000 + b", 1e999]") is None


async def test_bodies_past_the_memory_limit_are_refused_until_others_are_answered(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_memory, "MAX_BODY_MEMORY", 100)
    assert (await api.request("PUT", O1, b'{"port": 1, "zone": "%b"}' % (b"z" * 60), JSON)).status == 201
    refused = await api.request("PUT", O1, b'{"port": 1, "zone": "%b"}' % (b"z" * 90), JSON)
    assert (refused.status, refused.json["detail"]) == (503, "the memory for request bodies is full")
    assert "retry-after" in refused.headers
    for _ in range(3):
        assert (await api.request("PUT", O1, b'{"port": 2, "zone": "%b"}' % (b"z" * 60), JSON)).status == 200
