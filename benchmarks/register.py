"""Durable registrations: each write is on the disk before it is answered.

Each registration is a new instance, sent with a known token; etcd puts the same bytes under a new key. Both sync to the
same disk, and rounds are interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Final

from benchmarks.harness import callers, etcd_messages, http2, load, workload
from benchmarks.harness.busy_core import BusyCore
from benchmarks.harness.load import CALLERS, MeasuredLoad
from benchmarks.harness.programs import ProgramMissing
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import NO_ETCD, BenchmarkEtcd, BenchmarkNode, has_etcd, sqlite
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, log_progress, rate

SERVICES: Final = 100
"""Services to which the instances are registered in turn."""
FEW_CALLERS: Final = (4, 1)
"""Numbers of callers that are measured besides `CALLERS`."""
MAX_CPU: Final = 55e-6
"""The aim for the CPU of a registration by `CALLERS` callers."""


def run(options: RunOptions) -> list[Result]:
    results: list[Result] = []
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(options.folder, sqlite(options.folder)))
        peer = stack.enter_context(BenchmarkEtcd(options.folder)) if has_etcd() else None
        writes = RegistrationLoad(options, node, peer)
        rounds = writes.rounds(CALLERS, options.count(5, 1), options.seconds(4.0, 0.5))
        label = f"durable registrations, {CALLERS} callers"
        results += [*_rate_row(label, rounds), *_cpu_row(label, rounds), *_p99_row(label, rounds)]
        try:
            with BusyCore(options.folder):
                rounds = writes.rounds(CALLERS, options.count(3, 1), options.seconds(4.0, 0.5))
            results += _p99_row(f"{label}, the other core is busy", rounds)
        except ProgramMissing as error:
            results.append(SkippedResult(f"{label}, the other core is busy", str(error)))
        for few in FEW_CALLERS:
            label = f"durable registrations, {few} caller{'s' if few > 1 else ''}"
            rounds = writes.rounds(few, options.count(5, 1), options.seconds(2.0, 0.5))
            results += [*_rate_row(label, rounds), *_p99_row(label, rounds, has_aim=False)]
        if peer is None:
            results.append(SkippedResult("registrations beside etcd's puts", NO_ETCD))
    return results


@dataclass(frozen=True, slots=True)
class WriteRounds:
    """Interleaved rounds; those of etcd are empty without it."""

    ours: list[MeasuredLoad]
    etcds: list[MeasuredLoad]


class RegistrationLoad:
    """Registers new instances at a node, and puts the same bytes into etcd."""

    def __init__(self, options: RunOptions, node: BenchmarkNode, peer: BenchmarkEtcd | None) -> None:
        self._node = node
        self._peer = peer
        self._registrations, self._puts = workload.puts(node.port, names(), node.token_header()), puts()

    def rounds(self, callers_count: int, turns: int, seconds: float) -> WriteRounds:
        """Returns the results of rounds with this many callers on each side."""
        rounds, node, peer = WriteRounds([], []), self._node, self._peer
        kind = http2.GrpcConnection.for_method(etcd_messages.PUT)
        for turn in range(turns):
            log_progress(f"  {callers_count} callers, round {turn + 1}")
            rounds.ours.append(
                load.measure(
                    node,
                    lambda: callers.call_for_seconds(
                        node.port, self._registrations, callers_count, callers.Http1Connection, seconds=seconds
                    ),
                )
            )
            if peer is not None:
                rounds.etcds.append(
                    load.measure(
                        peer,
                        lambda: callers.call_for_seconds(peer.port, self._puts, callers_count, kind, seconds=seconds),
                    )
                )
        return rounds


def names() -> Iterator[tuple[str, str]]:
    """Returns an endless iterator over (service, id) of new instances."""
    return ((f"s-{number % SERVICES:02}", f"i-{number:06}") for number in count())


def puts() -> Iterator[bytes]:
    """Yields the same registrations as PutRequests."""
    for number, (service, id) in enumerate(names()):
        yield etcd_messages.put(f"bench/{service}/{id}".encode(), workload.body(number))


def _rate_row(label: str, rounds: WriteRounds) -> Iterator[ResultRow]:
    speed = load.median_of(rounds.ours, load.speed)
    if not rounds.etcds:
        yield ResultRow(f"{label}: rate", rate(speed), values=(("rate", speed),))
        return
    theirs, faster = load.median_of(rounds.etcds, load.speed), load.ratio(rounds.ours, rounds.etcds, load.speed)
    values = (("rate", speed), ("etcd_rate", theirs))
    yield ResultRow(f"{label}: rate", rate(speed), f"etcd puts {rate(theirs)}", faster, "≥ 1x", faster >= 1.0, values)


def _cpu_row(label: str, rounds: WriteRounds) -> Iterator[ResultRow]:
    cpu = load.median_of(rounds.ours, load.cpu)
    theirs = load.median_of(rounds.etcds, load.cpu) if rounds.etcds else 0.0
    yield ResultRow(
        f"{label}: CPU per registration",
        duration(cpu),
        f"etcd {duration(theirs)}" if rounds.etcds else "",
        1 / load.ratio(rounds.ours, rounds.etcds, load.cpu) if rounds.etcds else None,
        f"≤ {duration(MAX_CPU)}",
        cpu <= MAX_CPU,
        (("cpu", cpu), ("etcd_cpu", theirs)),
    )


def _p99_row(label: str, rounds: WriteRounds, *, has_aim: bool = True) -> Iterator[ResultRow]:
    slowest = load.median_of(rounds.ours, load.p99)
    if not rounds.etcds:
        yield ResultRow(f"{label}: p99", duration(slowest), values=(("p99", slowest),))
        return
    theirs, sooner = load.median_of(rounds.etcds, load.p99), 1 / load.ratio(rounds.ours, rounds.etcds, load.p99)
    yield ResultRow(
        f"{label}: p99",
        duration(slowest),
        f"etcd {duration(theirs)}",
        sooner,
        "≤ etcd's" if has_aim else "",
        sooner >= 1.0 if has_aim else None,
        (("p99", slowest), ("etcd_p99", theirs)),
    )
