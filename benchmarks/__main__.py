"""`python -m benchmarks [--only NAME …] [--quick] [--json FILE]` runs the benchmarks and prints one table.

A missed aim is only shown in the table, and so is a measurement without a program that is not installed. The exit code
is 1 if a benchmark failed: answers were wrong, or what is installed did not start.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from benchmarks.harness import machine
from benchmarks.harness.processes import BenchmarkFailed
from benchmarks.harness.programs import ProgramMissing
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, SkippedResult, is_failed, log_progress, render

BENCHMARKS: Final = {
    "lookup": "reads of a service, beside a bare server and etcd",
    "register": "durable registrations, beside etcd's puts",
    "renewal": "renewals of single leases, beside a bare server",
    "tls": "look-ups, registrations and new connections with TLS and a token, beside plain text",
    "fanout": "one change to 10,000 watchers, and a burst of changes",
    "renew": "leases of 100,000 instances on one node",
    "checks": "5,000 health checks of one node",
    "gateway": "requests through the gateway, beside other proxies",
    "features": "the cost of each feature of the gateway, per request",
    "pushes": "one change to many gateways, and to the first routed request",
    "names": "a new service until a gateway routes to it, beside 10,000 deregistered ones",
    "nodes": "three nodes over one etcd",
    "hold": "15,000 programs at one node for ten minutes; only with --only hold",
    "scale": "the estimated capacity of 3, 5 and 9 nodes",
    "pick": "the choice of an endpoint, for each policy",
    "access": "the check of who a caller is and what it may do",
    "change": "one change of a large catalog, at the node and at a consumer",
}
"""Name → description. A benchmark is the module of its name, with a function `run(options)`."""

LONG: Final = frozenset({"hold"})
"""Benchmarks that take so long that they run only if they are named."""

FOLDER: Final = Path("build")
"""The folder of stores and logs while it runs. It is inside the project, which is on a real disk."""


def main(arguments: Sequence[str] | None = None) -> None:
    parsed = _parser().parse_args(arguments)
    names = parsed.only or [name for name in BENCHMARKS if name not in LONG]
    _raise_file_limit()
    began, load_average = time.monotonic(), machine.load_average()
    results = [(name, _run(name, parsed.quick)) for name in names]
    print(render(results))
    described = machine.describe()
    print("\n" + "\n".join(f"{title}: {text}" for title, text in described.items()))
    seconds = time.monotonic() - began
    print(f"{time.strftime('%Y-%m-%d')}, {seconds:.0f} s{', quick' if parsed.quick else ''}; {load_average}")
    if parsed.json:
        document = {name: [asdict(result) for result in block] for name, block in results}
        parsed.json.write_text(json.dumps({"machine": described, "results": document}, indent=1))
    failed = [name for name, block in results if any(map(is_failed, block))]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:10}{description}" for name, description in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"Measure Adsum beside its peers in one run.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(BENCHMARKS),
        metavar="NAME",
        help="run only this one; may be given several times",
    )
    parser.add_argument(
        "--quick", action="store_true", help="run small and short: shows that it works, not how fast it is"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return parser


def _run(name: str, quick: bool) -> list[Result]:
    log_progress(f"{name}: {BENCHMARKS[name]}")
    run = cast("Callable[[RunOptions], list[Result]]", import_module(f"benchmarks.{name}").run)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=FOLDER, ignore_cleanup_errors=True) as folder:
        try:
            results = run(RunOptions(Path(folder).resolve(), quick))
        except ProgramMissing as error:
            return [SkippedResult(name, str(error))]
        except BenchmarkFailed as error:
            return [SkippedResult(name, str(error), is_failure=True)]
        except Exception as error:  # One that fails in another way must not lose the results of the others.
            traceback.print_exc()
            return [SkippedResult(name, f"{type(error).__name__}: {error}", is_failure=True)]
    return results or [SkippedResult(name, "there are no results", is_failure=True)]


def _raise_file_limit() -> None:
    """Raises the limit of open files: every watcher is a file here, and one in the node, which inherits the limit."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


if __name__ == "__main__":
    main()
