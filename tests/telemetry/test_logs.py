"""Log lines, and the thread that writes them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator

import pytest

from adsum.telemetry import sink
from adsum.telemetry.logs import Logs, text_line
from adsum.telemetry.sink import Sink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_line_for_people_shows_fields_and_quotes_texts_with_spaces() -> None:
    line = text_line(0.0, "info", "change", {"id": "o1", "reason": "scaled down", "actor": ""})
    assert line == b"1970-01-01T00:00:00.000Z info    change id=o1 reason='scaled down'\n"


@pytest.mark.parametrize(
    "reason",
    [
        "x cause=drained actor=root",
        "x\u00a0cause=drained",
        "x\u2028fake line",
        "\u202ekcab",
        "a=b",
        "it's",
        'say"',
        "\u200b",
    ],
)
@pytest.mark.parametrize("field", ["reason", "actor"])
def test_no_text_can_look_like_another_field_or_line(field: str, reason: str) -> None:
    line = text_line(0.0, "info", "change", {field: reason, "revision": 7}).decode()
    assert line == f"1970-01-01T00:00:00.000Z info    change {field}={reason!r} revision=7\n"
    assert len(line.splitlines()) == 1
    assert line.rstrip("\n").isprintable()


def test_a_message_that_quotes_a_peer_stays_one_printable_line() -> None:
    line = text_line(0.0, "warning", "a peer rejects: \x1b[2J\u202ekcab\nfake line", {}).decode()
    assert line == "1970-01-01T00:00:00.000Z warning a peer rejects: \\x1b[2J\\u202ekcab\\nfake line\n"


def test_records_of_the_process_become_lines_until_closed(pipe: tuple[int, int]) -> None:
    before = logging.getLogger().level, list(logging.getLogger().handlers)
    logs = Logs("info", "json", pipe[1])
    logging.getLogger("adsum.test").info("hello %s", "you")
    logging.getLogger("adsum.test").debug("not logged")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("adsum.test").exception("it failed")
    logs.close()
    assert (logging.getLogger().level, logging.getLogger().handlers) == before
    lines = [json.loads(line) for line in os.read(pipe[0], 100_000).splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [("info", "hello you"), ("error", "it failed")]
    assert "ValueError: broken" in lines[1]["error"]


def test_a_full_pipe_blocks_no_writer(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "MAX_QUEUED_LINES", 100)
    writer = Sink(pipe[1])
    for _ in range(10_000):
        writer.put(b"x" * 999 + b"\n")
    writer.close(0.01)
    output = os.read(pipe[0], 10_000_000)
    while b"log lines were lost" not in output:
        output += os.read(pipe[0], 10_000_000)
    writer.close(10.0)


def test_a_closed_pipe_is_ignored(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = Sink(pipe[1])
    writer.put(b"a line\n")
    writer.close()
