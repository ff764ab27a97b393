"""Runs h2load, nghttp2's load generator in C: one tool for HTTP/1.1 and gRPC, and cheaper than callers in Python."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.harness import programs
from benchmarks.harness.load import LoadRunResult, quantile

OVERTIME: Final = 30.0
"""Seconds that h2load may take longer than planned; then it is killed, and the run fails."""

_COUNTS: Final = re.compile(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_FINISHED: Final = re.compile(r"finished in ([\d.]+)(ms|us|s)")
_BODIES: Final = re.compile(r"traffic: .*\((\d+)\) data")
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def is_installed() -> bool:
    """Returns whether h2load is installed."""
    return programs.find("h2load") is not None


def get(url: str, callers: int, requests: int, folder: Path) -> LoadRunResult:
    """Sends GET requests over HTTP/1.1, with one connection for each caller."""
    return _run([url, "--h1"], callers, requests, folder)


def grpc(url: str, body: bytes, callers: int, requests: int, folder: Path) -> LoadRunResult:
    """Sends the same unary call, with one connection for each caller; `body` is the message as gRPC frames it."""
    file = folder / "h2load.body"
    file.write_bytes(body)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    return _run([url, "-d", str(file), *headers], callers, requests, folder)


def _run(arguments: list[str], callers: int, requests: int, folder: Path) -> LoadRunResult:
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    program = str(programs.need("h2load").path)
    command = [program, "-t1", "-m1", f"-c{callers}", f"-n{requests}", f"--log-file={log}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=OVERTIME + requests / 100)
    return _read(done.stdout, log.read_text())


def _read(output: str, log: str) -> LoadRunResult:
    counts, finished, bodies = _COUNTS.search(output), _FINISHED.search(output), _BODIES.search(output)
    if counts is None or finished is None or bodies is None:
        raise ValueError(f"the output of h2load can't be parsed: {output}")
    # Columns of the log: start in µs, status, duration in µs.
    lines = [line.split("\t") for line in log.splitlines()]
    latencies = sorted(int(line[2]) / 1e6 for line in lines)
    done, succeeded = int(counts[1]), int(counts[2])
    return LoadRunResult(
        requests=succeeded,
        failed=sum(map(int, counts.groups()[2:])) + sum(line[1] != "200" for line in lines),
        took=float(finished[1]) * _UNITS[finished[2]],
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        answer_bytes=int(bodies[1]) / max(1, done),
    )
