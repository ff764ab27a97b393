from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.client.errors import ProtocolViolation
from adsum.client.native import sse
from adsum.client.native.sse import SseEvent, SseParser

STREAM = (
    b": hello\n\nretry: 2000\n\nevent: open\ndata: {}\n\n"
    b"event: synced\r\nid: e:1\r\ndata: {\r\ndata: }\r\n\r\ndata:bare\n\nevent: none\n\nid: a\0b\ndata: x\n\n"
)
EVENTS = [
    SseEvent("open", b"{}"),
    SseEvent("synced", b"{\n}", "e:1"),
    SseEvent("message", b"bare"),
    SseEvent("message", b"x"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parser = SseParser()
    events = [event for a, b in pairwise(places) for event in parser.feed(STREAM[a:b])]
    assert events == EVENTS


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_bytes_are_read_without_failing(chunks: list[bytes]) -> None:
    parser = SseParser()
    for chunk in chunks:
        parser.feed(chunk)


@pytest.mark.parametrize("chunk", [b"x" * 64, b"data: x\n" * 8])
def test_an_event_without_end_is_a_protocol_violation(monkeypatch: pytest.MonkeyPatch, chunk: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    parser = SseParser()
    with pytest.raises(ProtocolViolation):
        assert [parser.feed(chunk) for _ in range(100)] == []


def test_many_short_events_do_not_count_as_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    parser = SseParser()
    assert sum(len(parser.feed(b"data: x\n\n: beat\n\n")) for _ in range(1000)) == 1000
