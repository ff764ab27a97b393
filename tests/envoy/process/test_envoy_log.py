"""Envoy's log lines in our log."""

from __future__ import annotations

import logging

import pytest

from adsum.envoy.process.envoy_log import MAX_LINE_BYTES, EnvoyLog


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "adsum.envoy")
    return caplog


def logged_lines(logged: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in logged.records]


def test_lines_keep_their_level_however_the_output_is_chunked(logged: pytest.LogCaptureFixture) -> None:
    log = EnvoyLog()
    for chunk in (b"[warn", b"ing][config] a\n[error][up", b"stream] b\n[info][main] c"):
        log.feed(chunk)
    log.feed(b"")
    assert logged_lines(logged) == [("WARNING", "config: a"), ("ERROR", "upstream: b"), ("INFO", "main: c")]
    assert list(log.errors) == ["b"]


def test_continuation_lines_have_the_level_of_their_message(logged: pytest.LogCaptureFixture) -> None:
    EnvoyLog().feed(b"[error][config] a\nb\n")
    assert logged_lines(logged) == [("ERROR", "config: a"), ("ERROR", "b")]


def test_expected_warnings_are_logged_at_debug_level(logged: pytest.LogCaptureFixture) -> None:
    log = EnvoyLog()
    log.feed(b"[warning][main] caught ENVOY_SIGTERM\n")
    log.stopping = True
    log.feed(b"[warning][config] DeltaAggregatedResources gRPC config stream closed\n")
    assert {level for level, _ in logged_lines(logged)} == {"DEBUG"}


def test_a_line_without_end_is_logged_in_pieces(logged: pytest.LogCaptureFixture) -> None:
    EnvoyLog().feed(b"x" * (2 * MAX_LINE_BYTES + 1))
    assert [len(message) for _, message in logged_lines(logged)] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 1]


def test_an_outage_of_the_registry_is_logged_once(logged: pytest.LogCaptureFixture) -> None:
    times = [0.0, 1.0, 14.0, 28.0, 60.0, 61.0]
    log = EnvoyLog(iter(sorted(times * 2)).__next__)
    for _ in times:
        log.feed(b"[warning][config] DeltaAggregatedResources gRPC config stream to x closed since 1s ago: 14, why\n")
        log.feed(b"[warning][upstream] StreamLoadStats gRPC config stream closed: 14, why\n")
    levels = [level for level, _ in logged_lines(logged)]
    assert levels == ["WARNING", *["DEBUG"] * 7, "WARNING", *["DEBUG"] * 3]
    log.feed(b"[warning][config] b\n")
    assert logged_lines(logged)[-1] == ("WARNING", "config: b")
