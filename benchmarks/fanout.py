"""Fan-out: watchers that are idle, one change told to every watcher of the service, and a hundred in a burst.

Watchers are connections of another process that reads as fast as it can. Times run from the moment in which the
registration is sent (so its commit is in them) to the one in which a watcher has read that change; they are pooled
over all watchers and changes. The burst is made by as many callers at once. Beside etcd at fewer watchers: each of its
streams takes a hundred kilobytes.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, sleep
from typing import Final

from adsum.core.liveness.heartbeats import HEARTBEAT
from benchmarks.harness import callers, etcd_messages, http2, workload
from benchmarks.harness.load import Load, WrongAnswers, quantile
from benchmarks.harness.processes import Child
from benchmarks.harness.run_options import Setting
from benchmarks.harness.servers import NO_ETCD, Etcd, Node, etcd_is_there, sqlite
from benchmarks.harness.table import Result, Row, Skipped, length, lengths, say, size
from benchmarks.harness.watcher_pool import Crowd, Ear, Heard, stamped

WATCHERS: Final = 10_000
BESIDE_ETCD: Final = 1_000
SLOWEST: Final = 0.5
SPARE_FILES: Final = 500
"""Files that the node needs beside those of its watchers."""
QUIET: Final = 15.0
"""Seconds for which idle watchers are measured: five heartbeats each."""
IDLE_SHARE: Final = 0.05
"""The share of a core that `WATCHERS` idle watchers may take."""
INSTANCES: Final = 100
PREFIX: Final = b"bench/orders/"

Change = Callable[[Sequence[int]], list[float]]


@dataclass(slots=True)
class Told:
    """What one crowd found out. Lengths in seconds, memory in bytes."""

    watchers: int
    memory: float
    cpu: float = 0.0
    delays: list[float] = field(default_factory=list)

    def add(self, heard: Heard) -> None:
        self.delays += [at - heard.sent[0] for at in heard.at]

    def spread(self) -> tuple[float, float, float]:
        """p50, p99 and the last of all."""
        delays = sorted(self.delays)
        return quantile(delays, 0.5), quantile(delays, 0.99), delays[-1]


def run(setting: Setting) -> list[Result]:
    wanted = setting.so_many(WATCHERS, 200)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(wanted, limit - SPARE_FILES)
    results: list[Result] = []
    if count < wanted:
        results.append(Skipped(f"{wanted:,} watchers", f"only {limit:,} files may be open: {count:,} instead"))
    results += _many(setting, count)
    if not etcd_is_there():
        return [*results, Skipped("watches beside etcd's", NO_ETCD)]
    return [*results, *_beside(setting, min(count, setting.so_many(BESIDE_ETCD, 50)))]


def _many(setting: Setting, count: int) -> list[Result]:
    with Node(setting.folder, sqlite(setting.folder)) as node:
        change = registrations(node)
        change(range(INSTANCES))
        alone = _idle(node, setting.so_long(QUIET / 2, 2.0))
        with Crowd(ear(node), node.port) as crowd:
            say(f"  {count:,} watchers connect")
            told = _open(node, crowd, count)
            say("  quiet")
            idle = _idle(node, setting.so_long(QUIET, 4.0)) - alone
            changes = setting.so_many(10, 2)
            for turn in range(changes):
                say(f"  change {turn + 1} of {changes}")
                _tell(node, crowd, told, [INSTANCES + turn], change)
            told.cpu /= changes
            say("  a burst")
            burst = crowd.hear(range(1_000, 1_100), change)
    return [_quiet(count, idle), *_rows(told), _burst(count, burst)]


def _beside(setting: Setting, count: int) -> list[Result]:
    with Node(setting.folder, sqlite(setting.folder, "beside")) as node, Etcd(setting.folder) as peer:
        register, put = registrations(node), _puts(peer)
        register(range(INSTANCES))
        put(range(INSTANCES))
        with Crowd(ear(node), node.port) as ours, Crowd(_etcd_ear(), peer.port) as theirs:
            told, etcds = _open(node, ours, count), _open(peer, theirs, count)
            changes = setting.so_many(10, 2)
            for turn in range(changes):
                say(f"  change {turn + 1} of {changes}, beside etcd")
                _tell(node, ours, told, [INSTANCES + turn], register)
                _tell(peer, theirs, etcds, [INSTANCES + turn], put)
    told.cpu /= changes
    etcds.cpu /= changes
    return _compared(told, etcds)


def _open(server: Child, crowd: Crowd, count: int) -> Told:
    before = server.memory()
    crowd.open(count)
    return Told(count, (server.memory() - before) / count)


def _idle(server: Child, seconds: float) -> float:
    """The share of a core that the server takes while nothing happens."""
    before, began = server.cpu(), monotonic()
    sleep(seconds)  # What is sent meanwhile fits into the buffers of the system.
    return (server.cpu() - before) / (monotonic() - began)


def _quiet(count: int, idle: float) -> Row:
    return Row(
        f"{count:,} idle watchers, a heartbeat every {HEARTBEAT:g} s",
        f"{idle:.1%} of a core, {length(idle * HEARTBEAT / count)} each",
        aim=f"< {IDLE_SHARE:.0%}",
        met=idle < IDLE_SHARE,
        values=(("share", idle),),
    )


def _tell(server: Child, crowd: Crowd, told: Told, marks: Sequence[int], change: Change) -> None:
    before = server.cpu()
    told.add(crowd.hear(marks, change))
    told.cpu += (server.cpu() - before) / told.watchers


def registrations(node: Node) -> Change:
    """Changes of a service's instances, each with its mark."""

    def request(mark: int) -> bytes:
        registration = workload.body(mark, metadata={"version": f"mark-{mark:08}"})
        return workload.put(node.port, workload.SERVICE, f"i-{mark % INSTANCES:06}", registration)

    def change(marks: Sequence[int]) -> list[float]:
        sent: list[float] = []
        made = callers.call_all(node.port, stamped(sent, request, marks), len(marks), callers.Http1, count=len(marks))
        return _made(made, sent)

    return change


def _puts(peer: Etcd) -> Change:
    def request(mark: int) -> bytes:
        value = workload.body(mark, metadata={"version": f"mark-{mark:08}"})
        return etcd_messages.put(PREFIX + b"%d" % (mark % INSTANCES), value)

    def change(marks: Sequence[int]) -> list[float]:
        sent: list[float] = []
        kind = http2.Grpc.of(etcd_messages.PUT)
        made = callers.call_all(peer.port, stamped(sent, request, marks), len(marks), kind, count=len(marks))
        return _made(made, sent)

    return change


def _made(made: Load, sent: list[float]) -> list[float]:
    """When the changes were sent, if all of them were made."""
    if made.failed or made.requests != len(sent):
        raise WrongAnswers(f"{made.requests} of {len(sent)} changes were made")
    return sent


def ear(node: Node) -> Ear:
    """Who watches that service at the node."""
    path = f"/api/v1/watch?service={workload.SERVICE}"
    hello = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{node.port}\r\naccept: text/event-stream\r\n\r\n"
    return Ear(hello.encode(), b"event: synced", b"event: synced")


def _etcd_ear() -> Ear:
    call = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(etcd_messages.WATCH))
    watch = http2.frame(http2.DATA, 0, 1, http2.message(etcd_messages.watch_prefix(PREFIX)))
    settled = http2.frame(http2.SETTINGS, http2.ACK, 0)
    return Ear(http2.opening() + settled + call + watch, etcd_messages.CREATED, b"mark-")


def _rows(told: Told) -> list[Result]:
    delays = told.spread()
    return [
        Row(
            f"one change to {told.watchers:,} watchers: p50 / p99 / last",
            lengths(delays),
            aim=f"p99 < {length(SLOWEST)}",
            met=delays[1] < SLOWEST,
            values=tuple(zip(("p50", "p99", "last"), delays, strict=True)),
        ),
        Row(
            f"{told.watchers:,} watchers: memory, and CPU a change, of each",
            f"{size(told.memory)}, {length(told.cpu)}",
            values=(("memory", told.memory), ("cpu", told.cpu)),
        ),
    ]


def _burst(count: int, heard: Heard) -> Row:
    answers = median(heard.counted)
    took = heard.at[-1] - heard.sent[0]
    return Row(
        f"a burst of {len(heard.sent)} changes to {count:,} watchers",
        f"{answers:.0f} groups each, all told after {length(took)}",
        aim="coalesced",
        met=answers < len(heard.sent),
        values=(("groups", answers), ("took", took)),
    )


def _compared(told: Told, etcds: Told) -> list[Result]:
    ours, theirs = told.spread(), etcds.spread()
    what = f"one change to {told.watchers:,} watchers"
    return [
        Row(f"{what}: p50", length(ours[0]), f"etcd {length(theirs[0])}", theirs[0] / ours[0]),
        Row(f"{what}: p99", length(ours[1]), f"etcd {length(theirs[1])}", theirs[1] / ours[1]),
        Row(f"{what}: CPU of each", length(told.cpu), f"etcd {length(etcds.cpu)}", etcds.cpu / max(told.cpu, 1e-9)),
        Row(
            f"{told.watchers:,} watchers: memory of each",
            size(told.memory),
            f"etcd {size(etcds.memory)}",
            etcds.memory / max(told.memory, 1.0),
        ),
    ]
