"""One node with 15,000 programs for ten minutes: a tenth of what three nodes are estimated to hold (`scale`).

Each program renews its own lease every 10 s and follows five services in one stream, with a known token. Meanwhile a
deploy replaces a tenth of them, with four changes for each. The programs are two other processes on the same machine.
Every stream is a connection of its own; all other requests share a pool, because systems limit open files.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.harness import program_process
from benchmarks.harness.answer_timer import AnswerTimer
from benchmarks.harness.load import WrongAnswers, quantile
from benchmarks.harness.processes import BenchmarkFailed
from benchmarks.harness.program_process import SERVICES_FOLLOWED
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode, sqlite
from benchmarks.harness.table import Result, ResultRow, SkippedResult, durations, log_progress, memory_size

PROGRAMS: Final = 15_000
PROCESSES: Final = 2
"""Processes of programs."""
SECONDS: Final = 600.0
RENEWAL_INTERVAL: Final = 10.0
"""Seconds between two renewals of a program: a third of the ttl."""
REPLACED_SHARE: Final = 0.1
"""The share of the programs that the deploy replaces in ten minutes."""
MAX_CPU_SHARE: Final = 0.6
"""The aim: the share of its core that the node may use. Beyond it delays grow (`scale`)."""
SPARE_FILES: Final = 500
"""Open files that the node needs besides those of the streams."""
PROBE_INTERVAL: Final = 0.05
"""Seconds between two requests of the client that measures how long the node's loop is blocked."""


def run(options: RunOptions) -> list[Result]:
    wanted, results = options.count(PROGRAMS, 60), list[Result]()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(wanted, limit - SPARE_FILES)
    if count < wanted:
        reason = f"only {limit:,} files may be open, so there are {count:,} instead"
        results.append(SkippedResult(f"{wanted:,} programs", reason))
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(options.folder, sqlite(options.folder)))
        empty, headers = node.memory(), node.token_header()
        pools = [stack.enter_context(ProgramPool(options.folder)) for _ in range(PROCESSES)]
        log_progress(f"  {count:,} programs connect")
        shares = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
        for number, pool in enumerate(pools):
            first = sum(shares[:number])
            pool.send(
                open=shares[number],
                first=first,
                programs=count,
                port=node.port,
                headers=headers.hex(),
                source=f"127.0.0.{number + 2}",
            )
        if (opened := sum(pool.receive() for pool in pools)) != count:
            raise WrongAnswers(f"{opened} of {count} streams were opened")
        results += _held(options, node, pools, count, empty)
    return results


class ProgramPool:
    """A process of programs (`program_process`)."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / f"programs-{id(self)}.log").open("w+")
        command = [sys.executable, str(program_process.__file__)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.renewals, self.delays = folder / f"renewals-{id(self)}", folder / f"delays-{id(self)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def send(self, **command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise BenchmarkFailed(f"the process of programs ended: {self._log.read().strip()[-500:]}")
        return json.loads(line)


@dataclass(frozen=True, slots=True)
class HeldLoad:
    """What the node did for the programs."""

    seconds: float
    share: float
    """The share of a core that the node used."""
    memory: float
    """Bytes for each program."""
    counts: list[dict[str, float]]
    renewals: list[float]
    delays: list[float]

    def total(self, name: str) -> float:
        return sum(count[name] for count in self.counts)


def _held(
    options: RunOptions, node: BenchmarkNode, pools: Sequence[ProgramPool], programs: int, empty: int
) -> list[Result]:
    seconds, every = options.seconds(SECONDS, 3.0), options.seconds(RENEWAL_INTERVAL, 1.0)
    log_progress(f"  {programs:,} programs for {seconds:.0f} s")
    replaced = options.seconds(programs * REPLACED_SHARE / SECONDS, 4.0)
    with AnswerTimer(node.port, PROBE_INTERVAL) as timer:
        before, began = node.cpu(), monotonic()
        for pool in pools:
            pool.send(
                hold=seconds,
                every=every,
                replaced_per_second=replaced / len(pools),
                renewals=str(pool.renewals),
                delays=str(pool.delays),
            )
        counts = [pool.receive() for pool in pools]
        took = monotonic() - began
        share = (node.cpu() - before) / took
    held = HeldLoad(
        took,
        share,
        (node.memory() - empty) / programs,
        counts,
        _seconds([pool.renewals for pool in pools]),
        _seconds([pool.delays for pool in pools]),
    )
    status = json.loads(node.get("/api/v1/status"))
    if status.get("leases_lapsed"):
        raise WrongAnswers(f"{status['leases_lapsed']} leases lapsed although they were renewed")
    if not held.renewals or not held.delays:
        raise WrongAnswers(f"{len(held.renewals)} renewals were answered, {len(held.delays)} changes delivered")
    return _rows(held, programs, timer)


def _seconds(files: Sequence[Path]) -> list[float]:
    values = array("d")
    for file in files:
        values.frombytes(file.read_bytes())
    return sorted(values)


def _rows(held: HeldLoad, programs: int, timer: AnswerTimer) -> list[Result]:
    kinds = ("events", "heartbeats", "acks")
    rates = ", ".join(f"{held.total(kind) / held.seconds:,.0f} {kind}" for kind in kinds)
    renewed = (quantile(held.renewals, 0.5), quantile(held.renewals, 0.99), held.renewals[-1])
    delays = (quantile(held.delays, 0.5), quantile(held.delays, 0.99), held.delays[-1])
    return [
        ResultRow(
            f"{programs:,} programs that follow {SERVICES_FOLLOWED} services, {held.seconds:.0f} s: CPU of one core",
            f"{held.share:.1%}",
            aim=f"< {MAX_CPU_SHARE:.0%}",
            is_met=held.share < MAX_CPU_SHARE,
            values=(("share", held.share), ("programs_share", held.total("share"))),
        ),
        ResultRow(
            "  a second",
            f"{len(held.renewals) / held.seconds:,.0f} renewals, {rates}",
            values=tuple((kind, held.total(kind) / held.seconds) for kind in kinds),
        ),
        ResultRow(
            "  renewals, from when they are due: p50 / p99 / max",
            durations(renewed),
            values=tuple(zip(("p50", "p99", "max"), renewed, strict=True)),
        ),
        ResultRow(
            "  a change to a program that follows it: p50 / p99 / max",
            durations(delays),
            values=tuple(zip(("p50", "p99", "max"), delays, strict=True)),
        ),
        ResultRow(
            "  an answer of the node to another client: p99 / max",
            durations((timer.p99, timer.longest)),
            values=(("p99", timer.p99), ("max", timer.longest)),
        ),
        ResultRow("  memory of the node for each program", memory_size(held.memory), values=(("memory", held.memory),)),
    ]
