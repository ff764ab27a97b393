"""The access log when standard output is not read, or read late."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from adsum.envoy.process.access_log import LOSS_REPORT_INTERVAL, MAX_LINE_BYTES, AccessLog, LineSplitter
from adsum.telemetry.sink import MAX_QUEUED_BYTES

LINE = b"x" * 1023 + b"\n"
PIECE = LINE * 1024


class Pipe:
    """The two ends of a pipe."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.now = 0.0

    def read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            read += os.read(self.reading, size - len(read))
        return read

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_unread_lines_are_bounded_counted_and_reported(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog(pipe.writing, lambda: pipe.now)
    capacity = MAX_QUEUED_BYTES // len(PIECE)
    for _ in range(capacity):
        log.write(PIECE)
    assert log.lost_lines == 0
    with caplog.at_level(logging.WARNING):
        log.write(PIECE)
        log.write(PIECE)
        assert (log.lost_lines, len(caplog.messages)) == (2048, 1), "it is not reported for every line"
        pipe.now += LOSS_REPORT_INTERVAL
        log.write(PIECE)
    assert "3072 access-log lines were dropped" in caplog.messages[-1]
    assert pipe.read(capacity * len(PIECE)) == PIECE * capacity, "written lines are whole"
    log.close()


def test_lines_are_written_again_once_output_is_read(pipe: Pipe) -> None:
    log = AccessLog(pipe.writing)
    capacity = MAX_QUEUED_BYTES // len(PIECE)
    for _ in range(capacity + 1):
        log.write(PIECE)
    pipe.read(capacity * len(PIECE))
    lost = -1
    while log.lost_lines != lost:  # The thread may be about to note that it has written all.
        lost = log.lost_lines
        log.write(b"again\n")
    assert pipe.read(6) == b"again\n"
    log.close()


def test_lines_of_several_envoys_do_not_mix(pipe: Pipe) -> None:
    log = AccessLog(pipe.writing)
    one, other = LineSplitter(log), LineSplitter(log)
    one.feed(b"a1\na")
    other.feed(b"b1")
    one.feed(b"2\n")
    other.feed(b"\nb2\nb")
    one.feed(b"")
    other.feed(b"")
    assert pipe.read(13) == b"a1\na2\nb1\nb2\nb"
    log.close()


def test_a_line_without_end_is_not_buffered_for_ever(pipe: Pipe) -> None:
    log = AccessLog(pipe.writing)
    lines = LineSplitter(log)
    lines.feed(b"x" * MAX_LINE_BYTES)
    lines.feed(b"x")
    assert pipe.read(MAX_LINE_BYTES + 1) == b"x" * (MAX_LINE_BYTES + 1)
    log.close()


def test_closing_writes_what_is_buffered(pipe: Pipe) -> None:
    log = AccessLog(pipe.writing)
    log.write(b"last\n")
    log.close()
    assert pipe.read(5) == b"last\n"
