"""Durable registrations: 64 callers at a time, each write on the disk before it is answered.

Ours are new instances, each with an id of its own; etcd is given the same bytes to put under a key of its own. Both
sync to the same disk; rounds are interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

from benchmarks.harness import callers, etcd_messages, http2, load, workload
from benchmarks.harness.load import CALLERS, Measured
from benchmarks.harness.run_options import Setting
from benchmarks.harness.servers import NO_ETCD, Etcd, Node, etcd_is_there, sqlite
from benchmarks.harness.table import Result, Row, Skipped, length, rate, say

SERVICES: Final = 100
"""The registrations go to so many services in turn."""


def run(setting: Setting) -> list[Result]:
    with Node(setting.folder, sqlite(setting.folder)) as node:
        if not etcd_is_there():
            return [*_rows(*_rounds(setting, node, None)), Skipped("registrations beside etcd's puts", NO_ETCD)]
        with Etcd(setting.folder) as peer:
            return _rows(*_rounds(setting, node, peer))


def _rounds(setting: Setting, node: Node, peer: Etcd | None) -> tuple[list[Measured], list[Measured]]:
    ours: list[Measured] = []
    etcds: list[Measured] = []
    registrations, raw = workload.puts(node.port, names()), puts()
    seconds = setting.so_long(4.0, 0.5)
    kind = http2.Grpc.of(etcd_messages.PUT)
    for turn in range(setting.so_many(5, 1)):
        say(f"  round {turn + 1}")
        ours.append(
            load.measured(node, lambda: callers.call(node.port, registrations, CALLERS, callers.Http1, seconds=seconds))
        )
        if peer is not None:
            etcds.append(load.measured(peer, lambda: callers.call(peer.port, raw, CALLERS, kind, seconds=seconds)))
    return ours, etcds


def names() -> Iterator[tuple[str, str]]:
    """Services and ids, each another."""
    return ((f"s-{number % SERVICES:02}", f"i-{number:06}") for number in count())


def puts() -> Iterator[bytes]:
    """The same registrations as puts of etcd's."""
    for number, (service, id) in enumerate(names()):
        yield etcd_messages.put(f"bench/{service}/{id}".encode(), workload.body(number))


def _rows(ours: list[Measured], etcds: list[Measured]) -> list[Result]:
    speed, cpu, slowest = (load.typical(ours, of) for of in (load.speed, load.cpu, load.p99))
    what = f"durable registrations, {CALLERS} callers"
    values = (("rate", speed), ("cpu", cpu), ("p99", slowest))
    if not etcds:
        return [Row(what, f"{rate(speed)}, CPU {length(cpu)}, p99 {length(slowest)}", values=values)]
    faster = load.ratio(ours, etcds, load.speed)
    their_speed, their_cpu, their_p99 = (load.typical(etcds, of) for of in (load.speed, load.cpu, load.p99))
    return [
        Row(
            f"{what}: rate",
            rate(speed),
            f"etcd puts {rate(their_speed)}",
            faster,
            "≥ 1x",
            faster >= 1.0,
            (*values, ("etcd_rate", their_speed), ("etcd_cpu", their_cpu), ("etcd_p99", their_p99)),
        ),
        Row(f"{what}: CPU each", length(cpu), f"etcd {length(their_cpu)}", 1 / load.ratio(ours, etcds, load.cpu)),
        Row(f"{what}: p99", length(slowest), f"etcd {length(their_p99)}", 1 / load.ratio(ours, etcds, load.p99)),
    ]
