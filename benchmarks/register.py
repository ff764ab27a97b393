"""Durable registrations by 64 callers: each write is on the disk before it is answered.

Each registration is a new instance; etcd puts the same bytes under a new key. Both sync to the same disk, and rounds
are interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

from benchmarks.harness import callers, etcd_messages, http2, load, workload
from benchmarks.harness.load import CALLERS, MeasuredLoad
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import NO_ETCD, BenchmarkEtcd, BenchmarkNode, has_etcd, sqlite
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, log_progress, rate

SERVICES: Final = 100
"""Services to which the instances are registered in turn."""


def run(options: RunOptions) -> list[Result]:
    with BenchmarkNode(options.folder, sqlite(options.folder)) as node:
        if not has_etcd():
            return [*_rows(*_rounds(options, node, None)), SkippedResult("registrations beside etcd's puts", NO_ETCD)]
        with BenchmarkEtcd(options.folder) as peer:
            return _rows(*_rounds(options, node, peer))


def _rounds(
    options: RunOptions, node: BenchmarkNode, peer: BenchmarkEtcd | None
) -> tuple[list[MeasuredLoad], list[MeasuredLoad]]:
    ours: list[MeasuredLoad] = []
    etcds: list[MeasuredLoad] = []
    registrations, raw = workload.puts(node.port, names()), puts()
    seconds = options.seconds(4.0, 0.5)
    kind = http2.GrpcConnection.for_method(etcd_messages.PUT)
    for turn in range(options.count(5, 1)):
        log_progress(f"  round {turn + 1}")
        ours.append(
            load.measure(
                node,
                lambda: callers.call_for_seconds(
                    node.port, registrations, CALLERS, callers.Http1Connection, seconds=seconds
                ),
            )
        )
        if peer is not None:
            etcds.append(
                load.measure(peer, lambda: callers.call_for_seconds(peer.port, raw, CALLERS, kind, seconds=seconds))
            )
    return ours, etcds


def names() -> Iterator[tuple[str, str]]:
    """Returns an endless iterator over (service, id) of new instances."""
    return ((f"s-{number % SERVICES:02}", f"i-{number:06}") for number in count())


def puts() -> Iterator[bytes]:
    """Yields the same registrations as PutRequests."""
    for number, (service, id) in enumerate(names()):
        yield etcd_messages.put(f"bench/{service}/{id}".encode(), workload.body(number))


def _rows(ours: list[MeasuredLoad], etcds: list[MeasuredLoad]) -> list[Result]:
    speed, cpu, slowest = (load.median_of(ours, metric) for metric in (load.speed, load.cpu, load.p99))
    label = f"durable registrations, {CALLERS} callers"
    values = (("rate", speed), ("cpu", cpu), ("p99", slowest))
    if not etcds:
        return [ResultRow(label, f"{rate(speed)}, CPU {duration(cpu)}, p99 {duration(slowest)}", values=values)]
    faster = load.ratio(ours, etcds, load.speed)
    their_speed, their_cpu, their_p99 = (load.median_of(etcds, metric) for metric in (load.speed, load.cpu, load.p99))
    return [
        ResultRow(
            f"{label}: rate",
            rate(speed),
            f"etcd puts {rate(their_speed)}",
            faster,
            "≥ 1x",
            faster >= 1.0,
            (*values, ("etcd_rate", their_speed), ("etcd_cpu", their_cpu), ("etcd_p99", their_p99)),
        ),
        ResultRow(
            f"{label}: CPU per registration",
            duration(cpu),
            f"etcd {duration(their_cpu)}",
            1 / load.ratio(ours, etcds, load.cpu),
        ),
        ResultRow(
            f"{label}: p99", duration(slowest), f"etcd {duration(their_p99)}", 1 / load.ratio(ours, etcds, load.p99)
        ),
    ]
