"""`python -m benchmarks [--only NAME …] [--quick] [--json FILE]`: every benchmark in turn, then one table.

An aim that is missed is said in the table and changes nothing else; the exit code is 1 if a benchmark could not be
finished, because answers were wrong.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from benchmarks.harness import machine
from benchmarks.harness.load import WrongAnswers
from benchmarks.harness.processes import BenchmarkUnavailable
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, SkippedResult, log_progress, render

BENCHMARKS: Final = {
    "lookup": "reading a service, beside a bare server and etcd",
    "register": "durable registrations, beside etcd's puts",
    "fanout": "one change to 10,000 watchers, and a burst",
    "renew": "100,000 instances held by one node",
    "checks": "5,000 checks run by one node",
    "gateway": "requests through the gateway, beside other proxies",
    "features": "what each thing that the gateway does costs a request",
    "pushes": "one change to many gateways, and to the first routed request",
    "names": "a new name, beside 10,000 that came and went",
    "nodes": "three nodes over one etcd",
    "scale": "what 3, 5 and 9 nodes would hold, by arithmetic",
    "pick": "choosing an endpoint, for each policy",
    "change": "one change of a large catalog, on both sides",
}
"""Name → what it is about; each is the module of that name, with `run(setting)`."""

FOLDER: Final = Path("build")
"""Where stores and logs go while it runs: beside the project, so that syncing meets a real disk."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    names = options.only or list(BENCHMARKS)
    _open_many_files()
    began, busy = time.monotonic(), machine.load_average()
    results = [(name, _run(name, options.quick)) for name in names]
    print(render(results))
    print(f"\n{machine.describe()}")
    took = time.monotonic() - began
    print(f"{time.strftime('%Y-%m-%d')}, {took:.0f} s{', quick' if options.quick else ''}; {busy}")
    if options.json:
        document = {name: [asdict(result) for result in block] for name, block in results}
        options.json.write_text(json.dumps({"machine": machine.describe(), "results": document}, indent=1))
    if any(isinstance(result, SkippedResult) and result.is_failure for _, block in results for result in block):
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:10}{about}" for name, about in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"How fast Adsum is, beside peers in the same run.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), metavar="NAME", help="run this one only")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    return parser


def _run(name: str, quick: bool) -> list[Result]:
    log_progress(f"{name}: {BENCHMARKS[name]}")
    run = cast("Callable[[RunOptions], list[Result]]", import_module(f"benchmarks.{name}").run)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=FOLDER, ignore_cleanup_errors=True) as folder:
        try:
            return run(RunOptions(Path(folder).resolve(), quick))
        except BenchmarkUnavailable as trouble:
            return [SkippedResult(name, str(trouble))]
        except (WrongAnswers, OSError) as wrong:
            return [SkippedResult(name, f"{wrong}", is_failure=True)]


def _open_many_files() -> None:
    """Every watcher is a file here and one in the node, which inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
