"""Tests that every benchmark gives its rows and that a failure is one, not how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import etcd_messages, http2, programs
from benchmarks.harness.load import quantile
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, durations, memory_size, render
from tests.support.programs import need

ROOT = Path(__file__).parents[1]
QUICK_TIMEOUT: Final = 240.0
"""Seconds for one benchmark with `--quick` on a machine on which other tests run."""

NEEDS: Final = {
    "gateway": ("envoy",),
    "features": ("envoy", "valgrind"),
    "pushes": ("envoy",),
    "names": ("envoy",),
    "nodes": ("etcd",),
}
"""Benchmark → the programs without which it gives no row."""

ROWS: Final[dict[str, dict[str, str]]] = {
    "lookup": {"look-up of 100 instances": "", "look-up by 64 callers: rate": "", "beside etcd's range read": "etcd"},
    "register": {
        "durable registrations, 64 callers: rate": "",
        "64 callers, the other core is busy: p99": "",
        "4 callers: rate": "",
        "1 caller: rate": "",
        "1,000 in a request": "",
    },
    "renewal": {"a renewal by itself, 64 callers: CPU": "", "64 callers: p99": ""},
    "tls": {"look-up with TLS": "", "registration with TLS": "", "new connection with TLS": ""},
    "fanout": {"idle watchers": "", "one change to 200 watchers: p50": "", "one change to 50 watchers: p99": "etcd"},
    "renew": {"CPU of one core": "", "memory per instance": "", "registering": "", "restart with": ""},
    "checks": {"HTTP checks every": "", "HTTP checks: CPU": ""},
    "gateway": {
        "beside static Envoy: rate": "",
        "beside static Envoy with its features: CPU": "",
        "with a JSON access log": "",
        "beside nginx: rate": "nginx",
        "beside haproxy: rate": "haproxy",
    },
    "features": {"a request with all features": "", "of which metrics by service": ""},
    "pushes": {"a change to the first request": "", "one change to the streams of 40 gateways": ""},
    "names": {"a new service until a gateway": "", "the slowest answer": ""},
    "nodes": {"registrations through 3 nodes": "", "single renewals": "", "a node is killed": ""},
    "hold": {"CPU of one core": "", "renewals, from when": "", "a change to a program": "", "memory of the node": ""},
    "scale": {"3 nodes: shards": "", "each program renews its lease": "", "9 nodes: shards": ""},
    "pick": {"round_robin: channel.pick()": "", "maglev: picker.pick()": ""},
    "access": {"a known token": "", "a client certificate": "", "a wrong token": ""},
    "change": {"in one service: apply": "", "at a consumer": ""},
}
"""Benchmark → parts of the labels of its rows, each with the program without which that row is skipped."""


def run_benchmarks(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=QUICK_TIMEOUT,
        check=False,
    )


@pytest.mark.long
@pytest.mark.timeout(QUICK_TIMEOUT + 10.0)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_quick_benchmark_gives_its_rows(name: str, tmp_path: Path) -> None:
    for program in NEEDS.get(name, ()):
        need(program)
    done = run_benchmarks("--quick", "--only", name, "--json", str(tmp_path / "results.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    results: list[dict[str, Any]] = json.loads((tmp_path / "results.json").read_text())["results"][name]
    measured = {result["label"] for result in results if "ours" in result}
    skipped = {result["reason"] for result in results if "reason" in result}
    for part, program in ROWS[name].items():
        if not program or programs.find(program):
            assert any(part in label for label in measured), f"no row of {part!r} in {done.stdout}"
        else:
            assert programs.missing_reason(program) in skipped, f"no reason without {part!r} in {done.stdout}"


def test_the_table_names_the_interpreter_and_the_programs_beside_it() -> None:
    heading, rule, *rows = run_benchmarks("--quick", "--only", "scale").stdout.splitlines()
    assert heading.split() == ["measurement", "ours", "peer", "ratio", "aim", "met?"]
    assert set(rule) == {"─", " "}
    interpreter = next(row for row in rows if row.startswith("interpreter: "))
    assert f" {sys.version.split()[0]}, built with" in interpreter.lower()
    assert "--enable-optimizations" in interpreter
    described = next(row for row in rows if row.startswith("programs: "))
    for name in ("etcd", "envoy"):
        assert str(programs.find(name) or programs.missing_reason(name)) in described


def test_an_installed_program_that_does_not_start_fails_the_run(tmp_path: Path) -> None:
    broken = tmp_path / "etcd"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'etcd Version: 99.0.0' && exit\necho no disk >&2; exit 3\n"
    )
    broken.chmod(0o755)
    done = run_benchmarks("--quick", "--only", "nodes", "--only", "scale", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "nodes: FAILED, etcd does not start: it ended with code 3: no disk" in done.stdout
    assert "9 nodes: shards" in done.stdout  # The other benchmark keeps its results.
    assert done.stderr.endswith("failed: nodes\n")


def test_a_program_that_is_not_installed_skips_its_rows_with_the_reason(tmp_path: Path) -> None:
    done = run_benchmarks("--quick", "--only", "nodes", PATH=str(tmp_path))
    assert done.returncode == 0
    assert "nodes: skipped, etcd is not installed (apt-get install etcd-server)" in done.stdout


def test_the_newest_etcd_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"a/etcd": "3.4.23", "b/etcd": "3.10.1", "c/etcd-3.6": "3.6.5", "d/etcdctl": "9.0.0", "e/etcd": "3.10.1"}
    for name, version in versions.items():
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
        file.chmod(0o755)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "etcd").write_text("not a program")
    folders = [str(tmp_path / name) for name in "abcdef"]
    monkeypatch.setenv("PATH", ":".join([*folders, str(tmp_path / "nowhere")]))
    programs.find.cache_clear()
    try:
        found = programs.find("etcd")
    finally:
        programs.find.cache_clear()
    assert found == programs.InstalledProgram("etcd", tmp_path / "b" / "etcd", (3, 10, 1))


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
