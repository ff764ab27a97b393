"""Brief acknowledgements, beside the way through the application."""

from __future__ import annotations

import json

import pytest

from adsum.core.access.scopes import NO_SCOPES
from tests.dialects.native.native_api import JSON, NativeApi
from tests.support.tokens import bearer, declare_token

JSON_HEADERS = [(name.encode(), value.encode()) for name, value in JSON.items()]


def _target(token: str) -> str:
    return f"/api/v1/watches/{token}/acknowledge"


async def test_the_fast_path_records_an_acknowledgement_and_answers_as_the_application_does(api: NativeApi) -> None:
    await api.register("orders", "o1")
    consumers = api.registry.watches.consumers
    async with api.watch("?service=orders&acks=true&consumer=c1") as watch:
        opened = (await watch.next_group())[0]
        target, body = _target(opened.data["watch"]), b'{"revision": 1}'
        assert (await consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting
        replies = api.answers("POST", target.encode(), body, JSON_HEADERS)
        assert not (await consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting
        assert replies is not None
        ((status, text),) = replies
        application = await api.request("POST", target, json.loads(body))
        assert (status, application.status) == (204, 204)
        assert dict(line.split(": ", 1) for line in text.decode().split("\r\n") if line) == application.headers
        assert [answer[:2] for answer in api.observer.answers][-2:] == [("acknowledge", 204)] * 2


@pytest.mark.parametrize(
    ("token", "body", "headers"),
    [
        ("unknown", b'{"revision": 1}', JSON_HEADERS),
        ("", b'{"revision": 1}', JSON_HEADERS),
        (None, b'{"revision": 99}', JSON_HEADERS),
        (None, b'{"revision": 1, "revision": 1}', JSON_HEADERS),
        (None, b'{"revision": -1}', JSON_HEADERS),
        (None, b'{"revision": 1}', []),
        (None, b"[", JSON_HEADERS),
    ],
)
async def test_the_application_answers_what_is_no_acknowledgement(
    api: NativeApi, token: str | None, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&consumer=c1") as watch:
        opened = (await watch.next_group())[0]
        target = _target(opened.data["watch"] if token is None else token)
        assert api.answers("POST", target.encode(), body, headers) is None
        assert (await api.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting


async def test_another_caller_cannot_acknowledge_for_a_watch() -> None:
    secure_api = NativeApi(anonymous=NO_SCOPES)
    await secure_api.registry.start()
    names = ("reader", "other")
    reader, other = [bearer(await declare_token(secure_api.registry, name, "read:*")) for name in names]
    async with secure_api.watch("?service=orders&acks=true&consumer=c1", headers=reader) as watch:
        opened = (await watch.next_group())[0]
        target = _target(opened.data["watch"]).encode()

        def answers(token: dict[str, str]) -> object:
            headers = [(name.encode(), value.encode()) for name, value in {**JSON, **token}.items()]
            return secure_api.answers("POST", target, b'{"revision": 0}', headers)

        assert answers({}) is None
        assert answers(other) is None
        assert answers(reader) is not None
    await secure_api.registry.stop()
