"""Envoy's words in our log."""

from __future__ import annotations

import logging

import pytest

from adsum.envoy.process.envoy_log import MAX_LINE_BYTES, EnvoyLog


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "adsum.envoy")
    return caplog


def told(logged: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in logged.records]


def test_lines_keep_their_level_however_they_are_cut(logged: pytest.LogCaptureFixture) -> None:
    lines = EnvoyLog()
    for chunk in (b"[warn", b"ing][config] a\n[error][up", b"stream] b\n[info][main] c"):
        lines.feed(chunk)
    lines.feed(b"")
    assert told(logged) == [("WARNING", "config: a"), ("ERROR", "upstream: b"), ("INFO", "main: c")]
    assert list(lines.errors) == ["b"]


def test_further_lines_of_a_message_have_its_level(logged: pytest.LogCaptureFixture) -> None:
    EnvoyLog().feed(b"[error][config] a\nb\n")
    assert told(logged) == [("ERROR", "config: a"), ("ERROR", "b")]


def test_what_we_make_it_do_is_no_warning(logged: pytest.LogCaptureFixture) -> None:
    lines = EnvoyLog()
    lines.feed(b"[warning][main] caught ENVOY_SIGTERM\n")
    lines.stopping = True
    lines.feed(b"[warning][config] DeltaAggregatedResources gRPC config stream closed\n")
    assert {level for level, _ in told(logged)} == {"DEBUG"}


def test_a_line_without_end_is_told_in_pieces(logged: pytest.LogCaptureFixture) -> None:
    EnvoyLog().feed(b"x" * (2 * MAX_LINE_BYTES + 1))
    assert [len(message) for _, message in told(logged)] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 1]


def test_an_outage_of_the_registry_is_told_once(logged: pytest.LogCaptureFixture) -> None:
    times = [0.0, 1.0, 14.0, 28.0, 60.0, 61.0]
    lines = EnvoyLog(iter(sorted(times * 2)).__next__)
    for _ in times:
        lines.feed(b"[warning][config] DeltaAggregatedResources gRPC config stream to x closed since 1s ago: 14, why\n")
        lines.feed(b"[warning][upstream] StreamLoadStats gRPC config stream closed: 14, why\n")
    levels = [level for level, _ in told(logged)]
    assert levels == ["WARNING", *["DEBUG"] * 7, "WARNING", *["DEBUG"] * 3]
    lines.feed(b"[warning][config] b\n")
    assert told(logged)[-1] == ("WARNING", "config: b")
