"""The demo at three times its pace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import find

LIMIT = 170.0
"""Seconds that the demo may take on a slow machine."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A running demo at three times its pace."""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "adsum", "demo", "--pace", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ,
    )
    yield process
    if process.poll() is None:
        process.terminate()
    process.communicate()


@pytest.mark.timeout(180)
@pytest.mark.long
def test_the_scenario_runs_and_no_request_fails(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    output, _ = demo.communicate(timeout=LIMIT)
    assert demo.returncode == 0, output
    for scene in ("kill -9 orders-2", "scaling up", "a deploy", "kill -9 the registry", "the registry restarts"):
        assert scene in output
    counts = dict(re.findall(r"^  (requests sent|of them through the gateway|failed) +(\d+)$", output, re.MULTILINE))
    assert int(counts["requests sent"]) > 100
    assert (int(counts["of them through the gateway"]) > 50) is (find("envoy") is not None)
    assert counts["failed"] == "0"
    assert not list(tmp_path.iterdir()), "its folder must be removed"


@pytest.mark.timeout(180)
def test_an_interrupted_demo_leaves_nothing_running(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "calling http://orders" in line:
            break
    children = _children(demo.pid)
    assert len(children) == (7 if find("envoy") else 6)
    demo.send_signal(signal.SIGTERM)
    demo.stdout.read()
    assert demo.wait(60) == 130
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
