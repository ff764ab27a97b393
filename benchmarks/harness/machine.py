"""Describes the machine of a run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import h2load
from benchmarks.harness.servers import etcd_version, has_etcd


def describe() -> str:
    """Returns one line: processor, cores, Python, and the versions of packages and peers."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec"))
    peers = etcd_version() if has_etcd() else "no etcd"
    tool = "h2load" if h2load.is_installed() else "no h2load"
    return f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}; {packages}; {peers}; {tool}"


def load_average() -> str:
    """Returns the load average in words, so that results from a busy machine are recognized."""
    return f"load {os.getloadavg()[0]:.1f} before the run"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
