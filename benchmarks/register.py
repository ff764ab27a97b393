"""Durable registrations: each write is on the disk before it is answered.

Each registration is a new instance, sent with a known token; etcd puts the same bytes under a new key. Both sync to the
same disk, and rounds are interleaved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
TOGETHER: Final = 1_000
"""Registrations in a request of many."""
TOGETHER_CALLERS: Final = 2
"""Callers that send many registrations in a request: while the node reads one, the other waits for the disk."""
MIN_TOGETHER_RATIO: Final = 2.0
"""The aim for the rate of registrations sent together, by that of etcd's puts by `CALLERS` callers."""
MAX_CPU: Final = 55e-6
"""The aim for the CPU of a registration by `CALLERS` callers."""


def run(options: RunOptions) -> list[Result]:
    results: list[Result] = []
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(options.folder, sqlite(options.folder)))
        peer = stack.enter_context(BenchmarkEtcd(options.folder)) if has_etcd() else None
        writes = RegistrationLoad(node, peer, workload.puts(node.port, names(), node.token_header()), "bench")
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
        results += _together_rows(options, node, peer)
        if peer is None:
            results.append(SkippedResult("registrations beside etcd's puts", NO_ETCD))
    return results


@dataclass(frozen=True, slots=True)
class WriteRounds:
    """Interleaved rounds; those of etcd are empty without it."""

    ours: list[MeasuredLoad]
    etcds: list[MeasuredLoad]


class RegistrationLoad:
    """Sends `requests` that register new instances to a node, and puts the same instances into etcd."""

    def __init__(
        self,
        node: BenchmarkNode,
        peer: BenchmarkEtcd | None,
        requests: Iterator[bytes],
        prefix: str,
        own_callers: int | None = None,
    ) -> None:
        """`prefix`: the beginning of etcd's keys. `own_callers`: the callers of the node, if not as many as etcd's."""
        self._node = node
        self._peer = peer
        self._own_callers = own_callers
        self._requests, self._puts = requests, puts(prefix)

    def rounds(self, callers_count: int, turns: int, seconds: float) -> WriteRounds:
        """Returns the results of rounds with this many callers on each side."""
        rounds, node, peer = WriteRounds([], []), self._node, self._peer
        own_callers = self._own_callers or callers_count
        kind = http2.GrpcConnection.for_method(etcd_messages.PUT)
        for turn in range(turns):
            log_progress(f"  {callers_count} callers, round {turn + 1}")
            rounds.ours.append(
                load.measure(
                    node,
                    lambda: callers.call_for_seconds(
                        node.port, self._requests, own_callers, callers.Http1Connection, seconds=seconds
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


def _together_rows(options: RunOptions, node: BenchmarkNode, peer: BenchmarkEtcd | None) -> Iterator[ResultRow]:
    """Yields the rows of registrations that are sent a thousand at a time, beside single puts into etcd."""
    requests, before = _requests_together(node.port, node.token_header("together")), _instances(node)
    writes = RegistrationLoad(node, peer, requests, "together", TOGETHER_CALLERS)
    rounds = writes.rounds(CALLERS, options.count(3, 1), options.seconds(4.0, 0.5))
    sent = TOGETHER * sum(measured.load.requests for measured in rounds.ours)
    if (registered := _instances(node) - before) != sent:
        raise load.WrongAnswers(f"{registered:,} of {sent:,} instances are registered")
    rounds = replace(rounds, ours=[_each(measured) for measured in rounds.ours])
    label = f"durable registrations, {TOGETHER:,} in a request, {TOGETHER_CALLERS} callers"
    yield from _rate_row(label, rounds, MIN_TOGETHER_RATIO)
    cpu, slowest = load.median_of(rounds.ours, load.cpu), load.median_of(rounds.ours, load.p99)
    text = f"{duration(cpu)}, p99 of a request {duration(slowest)}"
    yield ResultRow(f"{label}: CPU per registration", text, values=(("cpu", cpu), ("p99", slowest)))


def _each(measured: MeasuredLoad) -> MeasuredLoad:
    """Returns the result for single registrations of a load of requests with many."""
    run = measured.load
    return MeasuredLoad(replace(run, requests=run.requests * TOGETHER), measured.cpu / TOGETHER)


def _requests_together(port: int, headers: bytes) -> Iterator[bytes]:
    """Yields requests that register many new instances."""
    for start in count(0, TOGETHER):
        named = ((f"together-{number % SERVICES:02}", number) for number in range(start, start + TOGETHER))
        items = (
            b'{"service": "%b", "id": "i-%06d", %b' % (service.encode(), number, workload.body(number)[1:])
            for service, number in named
        )
        yield workload.post(port, "/api/v1/register", b'{"registrations": [%b]}' % b", ".join(items), headers)


def _instances(node: BenchmarkNode) -> int:
    instances: int = json.loads(node.get("/api/v1/status"))["instances"]
    return instances


def names() -> Iterator[tuple[str, str]]:
    """Returns an endless iterator over (service, id) of new instances."""
    return ((f"s-{number % SERVICES:02}", f"i-{number:06}") for number in count())


def puts(prefix: str = "bench") -> Iterator[bytes]:
    """Yields the same registrations as PutRequests, under keys that start with the prefix."""
    for number, (service, id) in enumerate(names()):
        yield etcd_messages.put(f"{prefix}/{service}/{id}".encode(), workload.body(number))


def _rate_row(label: str, rounds: WriteRounds, aim: float = 1.0) -> Iterator[ResultRow]:
    speed = load.median_of(rounds.ours, load.speed)
    if not rounds.etcds:
        yield ResultRow(f"{label}: rate", rate(speed), values=(("rate", speed),))
        return
    theirs, faster = load.median_of(rounds.etcds, load.speed), load.ratio(rounds.ours, rounds.etcds, load.speed)
    values = (("rate", speed), ("etcd_rate", theirs))
    text = f"etcd puts {rate(theirs)}"
    yield ResultRow(f"{label}: rate", rate(speed), text, faster, f"≥ {aim:g}x", faster >= aim, values)


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
