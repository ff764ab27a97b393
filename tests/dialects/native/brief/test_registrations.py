"""Registrations that wait without a task."""

from __future__ import annotations

import pytest

from adsum.dialects.native.requests import body_memory
from adsum.registry import write_queue
from tests.dialects.native.native_api import JSON, NativeApi
from tests.support.fakes import run_until_idle

O1 = b"/api/v1/services/orders/instances/o1"
HEADERS = [(b"content-type", b"application/json")]
BODY = b'{"port": 8000, "ttl": 10}'


async def test_a_registration_is_answered_when_it_is_durable(api: NativeApi) -> None:
    replies = api.answers("PUT", O1, BODY, HEADERS)
    assert replies == []
    await run_until_idle()
    assert replies is not None
    ((status, text),) = replies
    assert status == 201
    assert text.endswith(b'{"epoch":"e1","revision":1,"ttl":10.0}')
    assert api.registry.snapshot.revision == 1
    assert api.observer.answers == [("register", 201)]


async def test_the_memory_of_bodies_that_wait_is_bounded(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "MAX_BODY_MEMORY", 2 * len(BODY))
    waiting = [api.answers("PUT", O1, BODY, HEADERS) for _ in range(3)]
    assert waiting == [[], [], None], "the application refuses the third"
    await run_until_idle()
    assert api.answers("PUT", O1, BODY, HEADERS) == []
    await run_until_idle()


async def test_a_full_queue_leaves_the_refusal_to_the_application(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING_WRITES", 0)
    assert api.answers("PUT", O1, BODY, HEADERS) is None
    monkeypatch.setattr(body_memory, "MAX_BODY_MEMORY", len(BODY))
    monkeypatch.setattr(write_queue, "MAX_WAITING_WRITES", 1)
    assert api.answers("PUT", O1, BODY, HEADERS) == [], "no memory was kept"
    await run_until_idle()


async def test_a_store_that_refuses_is_reported_as_by_the_application(api: NativeApi) -> None:
    api.store.is_unavailable = True
    replies = api.answers("PUT", O1, BODY, HEADERS)
    await run_until_idle()
    response = await api.request("PUT", O1.decode(), BODY, JSON)
    assert replies is not None
    ((status, text),) = replies
    assert status == response.status == 503
    assert text.endswith(response.body)
    assert [name for name, _ in api.observer.refusals] == ["register"] * 2
    assert api.observer.answers == [("register", 503)] * 2


async def test_a_reply_that_fails_does_not_disturb_the_others(api: NativeApi, caplog: pytest.LogCaptureFixture) -> None:
    def broken(status: int | None, encoded: bytes) -> None:
        raise RuntimeError("a bug")

    path = api.native.fast_path
    prepared = path.prepare(HEADERS, b"")
    assert path.answer(b"PUT", O1, prepared, BODY, "10.1.2.3", broken)
    other = api.answers("PUT", O1.replace(b"o1", b"o2"), BODY, HEADERS)
    await run_until_idle()
    assert other is not None
    assert len(other) == 1
    assert [record.message for record in caplog.records] == ["the registration of orders/o1 could not be answered"]


async def test_registrations_that_wait_are_answered_when_the_registry_stops(api: NativeApi) -> None:
    api.store.gate.clear()
    replies = api.answers("PUT", O1, BODY, HEADERS)
    await run_until_idle()
    assert replies == []
    await api.registry.stop()
    assert [reply.status for reply in replies] == [503]
