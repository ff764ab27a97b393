from __future__ import annotations

import pytest

from adsum.dialects.native.brief import service_reads
from adsum.dialects.native.brief.prepared_headers import prepare_headers
from adsum.dialects.native.brief.service_reads import ServiceReads
from adsum.dialects.native.pages.pages import Pages
from tests.dialects.native.native_api import NativeApi

ORDERS = b"/api/v1/services/orders"


def _split(text: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = text.partition(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")), body


async def test_the_fast_path_responds_as_the_router_does(api: NativeApi) -> None:
    await api.register("orders", "o1")
    response = await api.request("GET", ORDERS.decode())
    reply = api.fast_path(ORDERS)
    assert reply is not None
    assert (reply.status, *_split(reply.text)) == (200, response.headers, response.body)
    tag = [(b"accept", b"*/*"), (b"if-none-match", response.headers["etag"].encode())]
    unchanged = api.fast_path(ORDERS, tag)
    again = await api.request("GET", ORDERS.decode(), headers={"if-none-match": response.headers["etag"]})
    assert unchanged is not None
    assert (unchanged.status, *_split(unchanged.text)) == (304, again.headers, b"")
    assert api.observer.answers[-3:] == [("read_service", 200), ("read_service", 304), ("read_service", 304)]


async def test_the_fast_path_follows_every_change(api: NativeApi) -> None:
    await api.register("orders", "o1")
    first = api.fast_path(ORDERS)
    assert api.fast_path(ORDERS) == first
    await api.register("users", "u1")
    second = api.fast_path(ORDERS)
    assert second is not None
    assert _split(second.text)[0]["adsum-revision"] == "2"
    await api.register("orders", "o2")
    third = api.fast_path(ORDERS)
    assert third is not None
    assert b'"o2"' in third.text


async def test_the_fast_path_states_the_current_age(api: NativeApi) -> None:
    await api.register("orders", "o1")
    api.fast_path(ORDERS)
    api.store.age_seconds = 1.5
    reply = api.fast_path(ORDERS)
    assert reply is not None
    assert _split(reply.text)[0]["adsum-age"] == "1.500"


@pytest.mark.parametrize(
    "target",
    [b"/", b"/api/v1/services", b"/api/v1/services/", b"/api/v1/services/unknown", ORDERS + b"?wait=1", b"\xff"],
)
async def test_other_requests_need_the_router(api: NativeApi, target: bytes) -> None:
    await api.register("orders", "o1")
    assert api.fast_path(target) is None


async def test_pages_of_emptied_services_are_freed(api: NativeApi) -> None:
    pages = Pages(api.registry)
    reads, headers = ServiceReads(api.registry, pages), prepare_headers(api.access, [], b"")
    for n in range(3):
        await api.register(f"s{n}", "i")
        assert reads.reply(b"/api/v1/services/s%d" % n, headers) is not None
    assert len(pages) == 3
    for n in range(2):
        await api.request("DELETE", f"/api/v1/services/s{n}/instances/i")
    await api.request("DELETE", "/api/v1/services/s1")
    emptied = reads.reply(b"/api/v1/services/s0", headers)
    assert emptied is not None
    assert _split(emptied.text)[1].endswith(b'"instances":[]}')
    assert reads.reply(b"/api/v1/services/s1", headers) is None
    assert len(pages) == 1


async def test_a_long_page_needs_the_router(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.register("orders", "o1")
    assert api.fast_path(ORDERS) is not None
    monkeypatch.setattr(service_reads, "BODY_PIECE_BYTES", 10)
    await api.register("orders", "o2")
    assert api.fast_path(ORDERS) is None
