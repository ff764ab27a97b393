"""Describes the machine of a run."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import programs


def describe() -> dict[str, str]:
    """Returns what the results depend on, by title: processor, interpreter, packages, and the programs beside ours."""
    packages = ("uvicorn", "uvloop", "httptools", "msgspec", "grpcio")
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}, {_build()} ({sys.executable})",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "programs": "; ".join(programs.describe()),
    }


def load_average() -> str:
    """Returns the load average in words, so that results from a busy machine are recognized."""
    return f"load {os.getloadavg()[0]:.1f} before the run"


def _build() -> str:
    """Returns how the interpreter was built. One with optimizations is about an eighth faster."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    flags = f"{sysconfig.get_config_var('PY_CORE_CFLAGS') or ''} {sysconfig.get_config_var('CFLAGS') or ''}"
    is_profiled = "--enable-optimizations" in arguments or "-fprofile-use" in flags
    is_linked_whole = "--with-lto" in arguments or "-flto" in flags
    parts = ["built with --enable-optimizations" if is_profiled else "built WITHOUT --enable-optimizations"]
    parts.append("with LTO" if is_linked_whole else "without LTO")
    if sysconfig.get_config_var("Py_DEBUG"):
        parts.append("a DEBUG build")
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
