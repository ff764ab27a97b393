"""5,000 HTTP checks every 10 s, run by one node against a local process.

The lag is reported by the node, once a second: how late the latest check was started.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import callers, load, target_server, workload
from benchmarks.harness.load import CALLERS, quantile
from benchmarks.harness.processes import MeasuredProcess, free_port, is_listening
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode, sqlite
from benchmarks.harness.table import Result, ResultRow, duration, log_progress

CHECKS: Final = 5_000
INTERVAL: Final = 10.0
SERVICES: Final = 50
MAX_LAG: Final = 1.0
"""Seconds of lag above which the node counts as behind."""
PASSING_TIMEOUT: Final = 60.0
"""Seconds in which all checks must pass; else the benchmark fails."""


class CheckTarget(MeasuredProcess):
    """The target of the checks."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__("target", [sys.executable, str(target_server.__file__), str(self.port)], folder)
        self.wait_until(partial(is_listening, self.port))


def run(options: RunOptions) -> list[Result]:
    checks = options.count(CHECKS, 100)
    with CheckTarget(options.folder) as target, BenchmarkNode(options.folder, sqlite(options.folder)) as node:
        log_progress(f"  {checks:,} registrations")
        check = {"name": "http", "kind": "http", "interval": options.seconds(INTERVAL, 1.0)}
        names = workload.spread(checks, SERVICES)
        registrations = workload.puts(node.port, names, address="127.0.0.1", port=target.port, ttl=None, checks=[check])
        result = callers.call_count(node.port, registrations, CALLERS, callers.Http1Connection, count=checks)
        if result.failed:
            raise load.WrongAnswers(f"{result.failed} of {checks} registrations failed")
        _wait_until_all_pass(node, checks)
        log_progress("  checks")
        # The first probes of all checks come close together, and are not measured.
        time.sleep(options.seconds(INTERVAL, 1.0))
        seconds = options.seconds(25.0, 3.0)
        before, began = node.cpu(), time.monotonic()
        lags = _lags(node, seconds)
        share = (node.cpu() - before) / (time.monotonic() - began)
        _wait_until_all_pass(node, checks)
    p99 = quantile(sorted(lags), 0.99)
    return [
        ResultRow(
            f"{checks:,} HTTP checks every {check['interval']:.0f} s: lag p50 / p99",
            f"{duration(quantile(sorted(lags), 0.5))} / {duration(p99)}",
            aim="not behind",
            is_met=p99 < MAX_LAG,
            values=(("p99", p99),),
        ),
        ResultRow(f"{checks:,} HTTP checks: CPU of one core", f"{share:.1%}", values=(("share", share),)),
    ]


def _status(node: BenchmarkNode) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(node.get("/api/v1/status"))
    return status


def _wait_until_all_pass(node: BenchmarkNode, checks: int) -> None:
    end = time.monotonic() + PASSING_TIMEOUT
    while (passing := _status(node).get("status_counts", {}).get("passing", 0)) != checks:
        if time.monotonic() > end:
            raise load.WrongAnswers(f"only {passing} of {checks} checks pass")
        time.sleep(0.25)


def _lags(node: BenchmarkNode, seconds: float) -> list[float]:
    """Returns the lags, read twice as often as the node updates them."""
    end = time.monotonic() + seconds
    lags = []
    while time.monotonic() < end:
        time.sleep(0.5)
        lags.append(float(_status(node).get("check_lag", 0.0)))
    return lags
