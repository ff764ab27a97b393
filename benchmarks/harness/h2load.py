"""h2load, nghttp2's load tool in C: the same tool for HTTP/1.1 and for gRPC, and cheaper than our own callers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.harness.load import LoadRunResult, quantile

HINT: Final = "h2load is not installed (apt-get install nghttp2-client): our own, slower callers are used"
OVERTIME: Final = 30.0
"""Seconds that h2load may take longer than it was told to; then it is killed, and the run fails."""

_COUNTS: Final = re.compile(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_FINISHED: Final = re.compile(r"finished in ([\d.]+)(ms|us|s)")
_BODIES: Final = re.compile(r"traffic: .*\((\d+)\) data")
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def is_installed() -> bool:
    """Whether it is installed."""
    return shutil.which("h2load") is not None


def get(url: str, callers: int, requests: int, folder: Path) -> LoadRunResult:
    """GET over HTTP/1.1."""
    return _run([url, "--h1"], callers, requests, folder)


def grpc(url: str, body: bytes, callers: int, requests: int, folder: Path) -> LoadRunResult:
    """The same call over and over; `body` is the message as gRPC frames it. A caller is a connection."""
    file = folder / "h2load.body"
    file.write_bytes(body)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    return _run([url, "-d", str(file), *headers], callers, requests, folder)


def _run(what: list[str], callers: int, requests: int, folder: Path) -> LoadRunResult:
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", "-m1", f"-c{callers}", f"-n{requests}", f"--log-file={log}", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=OVERTIME + requests / 100)
    return _read(done.stdout, log.read_text())


def _read(said: str, log: str) -> LoadRunResult:
    counts, finished, bodies = _COUNTS.search(said), _FINISHED.search(said), _BODIES.search(said)
    if counts is None or finished is None or bodies is None:
        raise ValueError(f"h2load says something unknown: {said}")
    # A line of the log: start in µs, status, length in µs.
    lines = [line.split("\t") for line in log.splitlines()]
    took = sorted(int(line[2]) / 1e6 for line in lines)
    done, succeeded = int(counts[1]), int(counts[2])
    return LoadRunResult(
        requests=succeeded,
        failed=sum(map(int, counts.groups()[2:])) + sum(line[1] != "200" for line in lines),
        took=float(finished[1]) * _UNITS[finished[2]],
        p50=quantile(took, 0.5),
        p99=quantile(took, 0.99),
        answer_bytes=int(bodies[1]) / max(1, done),
    )
