"""Checks at scale: 5,000 HTTP checks at an interval of 10 s, run by one node against a local process.

The lag is what the node itself says, once a second: how late the latest check was started since it was last asked.
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
"""Seconds of lag at which we say that it has fallen behind."""
PASSING_TIMEOUT: Final = 60.0
"""Seconds in which all must be passing; else the benchmark fails."""


class CheckTarget(MeasuredProcess):
    """The process that the checks go to."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__("target", [sys.executable, str(target_server.__file__), str(self.port)], folder)
        self.wait_until(partial(is_listening, self.port))


def run(setting: RunOptions) -> list[Result]:
    checks = setting.count(CHECKS, 100)
    with CheckTarget(setting.folder) as aim, BenchmarkNode(setting.folder, sqlite(setting.folder)) as node:
        log_progress(f"  {checks:,} registrations")
        check = {"name": "http", "kind": "http", "interval": setting.seconds(INTERVAL, 1.0)}
        names = workload.spread(checks, SERVICES)
        registrations = workload.puts(node.port, names, address="127.0.0.1", port=aim.port, ttl=None, checks=[check])
        found = callers.call_count(node.port, registrations, CALLERS, callers.Http1Connection, count=checks)
        if found.failed:
            raise load.WrongAnswers(f"{found.failed} of {checks} registrations failed")
        _wait_until_all_pass(node, checks)
        log_progress("  checks")
        time.sleep(setting.seconds(INTERVAL, 1.0))  # The first round is bunched: it must be over.
        seconds = setting.seconds(25.0, 3.0)
        before, began = node.cpu(), time.monotonic()
        lags = _watch(node, seconds)
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
    while (standing := _status(node).get("status", {}).get("passing", 0)) != checks:
        if time.monotonic() > end:
            raise load.WrongAnswers(f"only {standing} of {checks} checks pass")
        time.sleep(0.25)


def _watch(node: BenchmarkNode, seconds: float) -> list[float]:
    """The lag, looked at twice as often as the node tells it."""
    end = time.monotonic() + seconds
    lags = []
    while time.monotonic() < end:
        time.sleep(0.5)
        lags.append(float(_status(node).get("check_lag", 0.0)))
    return lags
