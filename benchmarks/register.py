"""Durable registrations: 64 callers at a time, each write on the disk before it is answered.

Ours are new instances, each with an id of its own; etcd is given the same bytes to put under a key of its own. Both
sync to the same disk; rounds are interleaved.
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
"""The registrations go to so many services in turn."""


def run(setting: RunOptions) -> list[Result]:
    with BenchmarkNode(setting.folder, sqlite(setting.folder)) as node:
        if not has_etcd():
            return [*_rows(*_rounds(setting, node, None)), SkippedResult("registrations beside etcd's puts", NO_ETCD)]
        with BenchmarkEtcd(setting.folder) as peer:
            return _rows(*_rounds(setting, node, peer))


def _rounds(
    setting: RunOptions, node: BenchmarkNode, peer: BenchmarkEtcd | None
) -> tuple[list[MeasuredLoad], list[MeasuredLoad]]:
    ours: list[MeasuredLoad] = []
    etcds: list[MeasuredLoad] = []
    registrations, raw = workload.puts(node.port, names()), puts()
    seconds = setting.seconds(4.0, 0.5)
    kind = http2.GrpcConnection.for_method(etcd_messages.PUT)
    for turn in range(setting.count(5, 1)):
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
    """Services and ids, each another."""
    return ((f"s-{number % SERVICES:02}", f"i-{number:06}") for number in count())


def puts() -> Iterator[bytes]:
    """The same registrations as puts of etcd's."""
    for number, (service, id) in enumerate(names()):
        yield etcd_messages.put(f"bench/{service}/{id}".encode(), workload.body(number))


def _rows(ours: list[MeasuredLoad], etcds: list[MeasuredLoad]) -> list[Result]:
    speed, cpu, slowest = (load.median_of(ours, of) for of in (load.speed, load.cpu, load.p99))
    what = f"durable registrations, {CALLERS} callers"
    values = (("rate", speed), ("cpu", cpu), ("p99", slowest))
    if not etcds:
        return [ResultRow(what, f"{rate(speed)}, CPU {duration(cpu)}, p99 {duration(slowest)}", values=values)]
    faster = load.ratio(ours, etcds, load.speed)
    their_speed, their_cpu, their_p99 = (load.median_of(etcds, of) for of in (load.speed, load.cpu, load.p99))
    return [
        ResultRow(
            f"{what}: rate",
            rate(speed),
            f"etcd puts {rate(their_speed)}",
            faster,
            "≥ 1x",
            faster >= 1.0,
            (*values, ("etcd_rate", their_speed), ("etcd_cpu", their_cpu), ("etcd_p99", their_p99)),
        ),
        ResultRow(
            f"{what}: CPU each", duration(cpu), f"etcd {duration(their_cpu)}", 1 / load.ratio(ours, etcds, load.cpu)
        ),
        ResultRow(
            f"{what}: p99", duration(slowest), f"etcd {duration(their_p99)}", 1 / load.ratio(ours, etcds, load.p99)
        ),
    ]
