from __future__ import annotations

import pytest

from adsum.dialects.native.pages import fast_path
from adsum.dialects.native.pages.byte_cache import ByteCache
from adsum.dialects.native.pages.fast_path import FastPath
from adsum.dialects.native.pages.pages import Pages
from tests.dialects.native.native_api import NativeApi

ORDERS = b"/api/v1/services/orders"


def _split(text: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = text.partition(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")), body


async def test_what_is_answered_promptly_is_what_the_router_answers(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    heard = await spoken.request("GET", ORDERS.decode())
    answer = spoken.native.fast_path(ORDERS, [])
    assert answer is not None
    assert (answer.status, *_split(answer.text)) == (200, heard.headers, heard.body)
    tag = [(b"accept", b"*/*"), (b"if-none-match", heard.headers["etag"].encode())]
    unchanged = spoken.native.fast_path(ORDERS, tag)
    again = await spoken.request("GET", ORDERS.decode(), headers={"if-none-match": heard.headers["etag"]})
    assert unchanged is not None
    assert (unchanged.status, *_split(unchanged.text)) == (304, again.headers, b"")
    assert spoken.observer.answers[-3:] == [("read_service", 200), ("read_service", 304), ("read_service", 304)]


async def test_the_next_answer_follows_a_change_anywhere(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    first = spoken.native.fast_path(ORDERS, [])
    assert spoken.native.fast_path(ORDERS, []) is first
    await spoken.register("users", "u1")
    second = spoken.native.fast_path(ORDERS, [])
    assert second is not None
    assert _split(second.text)[0]["adsum-revision"] == "2"
    await spoken.register("orders", "o2")
    third = spoken.native.fast_path(ORDERS, [])
    assert third is not None
    assert b'"o2"' in third.text


async def test_the_age_is_true(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    spoken.native.fast_path(ORDERS, [])
    spoken.store.age_seconds = 1.5
    answer = spoken.native.fast_path(ORDERS, [])
    assert answer is not None
    assert _split(answer.text)[0]["adsum-age"] == "1.500"


@pytest.mark.parametrize(
    "target",
    [b"/", b"/api/v1/services", b"/api/v1/services/", b"/api/v1/services/nobody", ORDERS + b"?wait=1", b"\xff"],
)
async def test_everything_else_goes_the_long_way(spoken: NativeApi, target: bytes) -> None:
    await spoken.register("orders", "o1")
    assert spoken.native.fast_path(target, []) is None


async def test_pages_of_emptied_services_are_freed(spoken: NativeApi) -> None:
    pages = Pages(spoken.registry)
    prompt = FastPath(spoken.registry, pages)
    for n in range(3):
        await spoken.register(f"s{n}", "i")
        assert prompt.reply(b"/api/v1/services/s%d" % n, []) is not None
    assert len(pages) == 3
    for n in range(2):
        await spoken.request("DELETE", f"/api/v1/services/s{n}/instances/i")
    await spoken.request("DELETE", "/api/v1/services/s1")
    emptied = prompt.reply(b"/api/v1/services/s0", [])
    assert emptied is not None
    assert _split(emptied.text)[1].endswith(b'"instances":[]}')
    assert prompt.reply(b"/api/v1/services/s1", []) is None
    assert len(pages) == 1


def test_a_shelf_keeps_what_was_asked_for_last_within_its_bound() -> None:
    shelf = ByteCache(10)
    made: list[str] = []

    def get(key: str, size: int = 4) -> None:
        def make() -> bytes:
            made.append(key)
            return b"x" * size

        shelf.get(key, make)

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    get("huge", 11)
    get("huge", 11)
    assert made[-2:] == ["huge", "huge"]
    assert len(shelf) == 2


async def test_a_long_page_goes_the_long_way(spoken: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await spoken.register("orders", "o1")
    assert spoken.native.fast_path(ORDERS, []) is not None
    monkeypatch.setattr(fast_path, "BODY_PIECE_BYTES", 10)
    await spoken.register("orders", "o2")
    assert spoken.native.fast_path(ORDERS, []) is None
