"""Tests that the benchmarks run and print their table, not how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import etcd_messages, http2
from benchmarks.harness.load import quantile
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, durations, memory_size, render

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_quick_benchmarks_print_a_table(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    names = ("lookup", "tls", "gateway", "pushes", "names", "pick", "change", "access")
    chosen = [part for name in names for part in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *chosen, "--json", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100.0,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    heading, rule, *rows = done.stdout.splitlines()
    assert heading.split() == ["measurement", "ours", "peer", "ratio", "aim", "met?"]
    assert set(rule) == {"─", " "}
    assert any("channel.pick()" in row for row in rows)
    assert set(json.loads(output.read_text())["results"]) == set(names)


def test_a_missed_aim_and_a_skipped_peer_are_shown() -> None:
    rows: list[Result] = [
        ResultRow("a", "2 ms", "1 ms", 0.5, "< 1 ms", is_met=False),
        SkippedResult("b", "not here"),
        ResultRow("c", "1 ms", is_met=True),
    ]
    text = render([("x", rows)])
    assert "MISSED" in text
    assert "0.50x" in text
    assert "b: skipped, not here" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5e-7, "250 ns"), (1e-6, "1.00 µs"), (0.0423, "42.3 ms"), (0.9999, "1.00 s"), (61.2, "61.2 s")],
)
def test_durations_have_the_largest_fitting_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_common_unit_is_printed_once() -> None:
    assert durations([0.001, 0.02]) == "1.00 / 20.0 ms"
    assert durations([0.0001, 0.02]) == "100 µs / 20.0 ms"
    assert (memory_size(100), memory_size(20_480)) == ("100 B", "20.0 KiB")


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([], 0.5)) == (50.0, 99.0, 0.0)


@pytest.fixture(params=[1, 3, 9, 10, 1000])
def pieces(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """Returns two frames, cut into pieces of that length."""
    text = http2.frame(http2.DATA, 0, 1, b"x" * 20) + http2.frame(http2.PING, http2.ACK, 0)
    return (text[at : at + request.param] for at in range(0, len(text), request.param))


def test_frames_are_whole_however_the_bytes_are_cut(pieces: Iterator[bytes]) -> None:
    frames = http2.FrameReader()
    assert [frame for piece in pieces for frame in frames.feed(piece)] == [
        (http2.DATA, 0, b"x" * 20),
        (http2.PING, http2.ACK, b""),
    ]


def test_a_prefix_range_of_etcd_ends_at_the_first_key_after_the_prefix() -> None:
    assert etcd_messages.get_prefix(b"a/") == b"\x0a\x02a/\x12\x02a0"
    assert etcd_messages.put(b"k", b"v" * 200) == b"\x0a\x01k\x12\xc8\x01" + b"v" * 200
