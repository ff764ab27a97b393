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

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from benchmarks.harness import callers, etcd_messages, http2, workload
from benchmarks.harness.load import LoadRunResult, WrongAnswers, quantile
from benchmarks.harness.processes import MeasuredProcess
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import NO_ETCD, BenchmarkEtcd, BenchmarkNode, has_etcd, sqlite
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, durations, log_progress, memory_size
from benchmarks.harness.watcher_pool import Deliveries, WatcherPool, WatchProtocol, record_send_times

WATCHERS: Final = 10_000
ETCD_WATCHERS: Final = 1_000
MAX_P99_DELAY: Final = 0.5
SPARE_FILES: Final = 500
"""Files that the node needs beside those of its watchers."""
IDLE_SECONDS: Final = 15.0
"""Seconds for which idle watchers are measured: five heartbeats each."""
MAX_IDLE_SHARE: Final = 0.05
"""The share of a core that `WATCHERS` idle watchers may take."""
INSTANCES: Final = 100
PREFIX: Final = b"bench/orders/"

Change = Callable[[Sequence[int]], list[float]]


@dataclass(slots=True)
class FanoutResult:
    """What one crowd found out. Lengths in seconds, memory in bytes."""

    watchers: int
    memory: float
    cpu: float = 0.0
    delays: list[float] = field(default_factory=list)

    def add(self, heard: Deliveries) -> None:
        self.delays += [at - heard.sent_at[0] for at in heard.received_at]

    def percentiles(self) -> tuple[float, float, float]:
        """p50, p99 and the last of all."""
        delays = sorted(self.delays)
        return quantile(delays, 0.5), quantile(delays, 0.99), delays[-1]


def run(setting: RunOptions) -> list[Result]:
    wanted = setting.count(WATCHERS, 200)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(wanted, limit - SPARE_FILES)
    results: list[Result] = []
    if count < wanted:
        results.append(SkippedResult(f"{wanted:,} watchers", f"only {limit:,} files may be open: {count:,} instead"))
    results += _many(setting, count)
    if not has_etcd():
        return [*results, SkippedResult("watches beside etcd's", NO_ETCD)]
    return [*results, *_beside(setting, min(count, setting.count(ETCD_WATCHERS, 50)))]


def _many(setting: RunOptions, count: int) -> list[Result]:
    with BenchmarkNode(setting.folder, sqlite(setting.folder)) as node:
        change = registration_changes(node)
        change(range(INSTANCES))
        alone = _idle(node, setting.seconds(IDLE_SECONDS / 2, 2.0))
        with WatcherPool(watch_protocol(node), node.port) as crowd:
            log_progress(f"  {count:,} watchers connect")
            told = _open(node, crowd, count)
            log_progress("  quiet")
            idle = _idle(node, setting.seconds(IDLE_SECONDS, 4.0)) - alone
            changes = setting.count(10, 2)
            for turn in range(changes):
                log_progress(f"  change {turn + 1} of {changes}")
                _tell(node, crowd, told, [INSTANCES + turn], change)
            told.cpu /= changes
            log_progress("  a burst")
            burst = crowd.deliver(range(1_000, 1_100), change)
    return [_quiet(count, idle), *_rows(told), _burst(count, burst)]


def _beside(setting: RunOptions, count: int) -> list[Result]:
    with BenchmarkNode(setting.folder, sqlite(setting.folder, "beside")) as node, BenchmarkEtcd(setting.folder) as peer:
        register, put = registration_changes(node), _puts(peer)
        register(range(INSTANCES))
        put(range(INSTANCES))
        with WatcherPool(watch_protocol(node), node.port) as ours, WatcherPool(_etcd_ear(), peer.port) as theirs:
            told, etcds = _open(node, ours, count), _open(peer, theirs, count)
            changes = setting.count(10, 2)
            for turn in range(changes):
                log_progress(f"  change {turn + 1} of {changes}, beside etcd")
                _tell(node, ours, told, [INSTANCES + turn], register)
                _tell(peer, theirs, etcds, [INSTANCES + turn], put)
    told.cpu /= changes
    etcds.cpu /= changes
    return _compared(told, etcds)


def _open(server: MeasuredProcess, crowd: WatcherPool, count: int) -> FanoutResult:
    before = server.memory()
    crowd.open(count)
    return FanoutResult(count, (server.memory() - before) / count)


def _idle(server: MeasuredProcess, seconds: float) -> float:
    """The share of a core that the server takes while nothing happens."""
    before, began = server.cpu(), monotonic()
    sleep(seconds)  # What is sent meanwhile fits into the buffers of the system.
    return (server.cpu() - before) / (monotonic() - began)


def _quiet(count: int, idle: float) -> ResultRow:
    return ResultRow(
        f"{count:,} idle watchers, a heartbeat every {DEFAULT_HEARTBEAT:g} s",
        f"{idle:.1%} of a core, {duration(idle * DEFAULT_HEARTBEAT / count)} each",
        aim=f"< {MAX_IDLE_SHARE:.0%}",
        is_met=idle < MAX_IDLE_SHARE,
        values=(("share", idle),),
    )


def _tell(
    server: MeasuredProcess, crowd: WatcherPool, told: FanoutResult, marks: Sequence[int], change: Change
) -> None:
    before = server.cpu()
    told.add(crowd.deliver(marks, change))
    told.cpu += (server.cpu() - before) / told.watchers


def registration_changes(node: BenchmarkNode) -> Change:
    """Changes of a service's instances, each with its mark."""

    def request(mark: int) -> bytes:
        registration = workload.body(mark, metadata={"version": f"mark-{mark:08}"})
        return workload.put(node.port, workload.SERVICE, f"i-{mark % INSTANCES:06}", registration)

    def change(marks: Sequence[int]) -> list[float]:
        sent: list[float] = []
        made = callers.call_count(
            node.port, record_send_times(sent, request, marks), len(marks), callers.Http1Connection, count=len(marks)
        )
        return _made(made, sent)

    return change


def _puts(peer: BenchmarkEtcd) -> Change:
    def request(mark: int) -> bytes:
        value = workload.body(mark, metadata={"version": f"mark-{mark:08}"})
        return etcd_messages.put(PREFIX + b"%d" % (mark % INSTANCES), value)

    def change(marks: Sequence[int]) -> list[float]:
        sent: list[float] = []
        kind = http2.GrpcConnection.for_method(etcd_messages.PUT)
        made = callers.call_count(
            peer.port, record_send_times(sent, request, marks), len(marks), kind, count=len(marks)
        )
        return _made(made, sent)

    return change


def _made(made: LoadRunResult, sent: list[float]) -> list[float]:
    """When the changes were sent, if all of them were made."""
    if made.failed or made.requests != len(sent):
        raise WrongAnswers(f"{made.requests} of {len(sent)} changes were made")
    return sent


def watch_protocol(node: BenchmarkNode) -> WatchProtocol:
    """Who watches that service at the node."""
    path = f"/api/v1/watch?service={workload.SERVICE}"
    hello = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{node.port}\r\naccept: text/event-stream\r\n\r\n"
    return WatchProtocol(hello.encode(), b"event: synced", b"event: synced")


def _etcd_ear() -> WatchProtocol:
    call = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(etcd_messages.WATCH))
    watch = http2.frame(http2.DATA, 0, 1, http2.message(etcd_messages.watch_prefix(PREFIX)))
    settled = http2.frame(http2.SETTINGS, http2.ACK, 0)
    return WatchProtocol(http2.connection_preface() + settled + call + watch, etcd_messages.CREATED, b"mark-")


def _rows(told: FanoutResult) -> list[Result]:
    delays = told.percentiles()
    return [
        ResultRow(
            f"one change to {told.watchers:,} watchers: p50 / p99 / last",
            durations(delays),
            aim=f"p99 < {duration(MAX_P99_DELAY)}",
            is_met=delays[1] < MAX_P99_DELAY,
            values=tuple(zip(("p50", "p99", "last"), delays, strict=True)),
        ),
        ResultRow(
            f"{told.watchers:,} watchers: memory, and CPU a change, of each",
            f"{memory_size(told.memory)}, {duration(told.cpu)}",
            values=(("memory", told.memory), ("cpu", told.cpu)),
        ),
    ]


def _burst(count: int, heard: Deliveries) -> ResultRow:
    answers = median(heard.answer_counts)
    took = heard.received_at[-1] - heard.sent_at[0]
    return ResultRow(
        f"a burst of {len(heard.sent_at)} changes to {count:,} watchers",
        f"{answers:.0f} groups each, all told after {duration(took)}",
        aim="coalesced",
        is_met=answers < len(heard.sent_at),
        values=(("groups", answers), ("took", took)),
    )


def _compared(told: FanoutResult, etcds: FanoutResult) -> list[Result]:
    ours, theirs = told.percentiles(), etcds.percentiles()
    what = f"one change to {told.watchers:,} watchers"
    return [
        ResultRow(f"{what}: p50", duration(ours[0]), f"etcd {duration(theirs[0])}", theirs[0] / ours[0]),
        ResultRow(f"{what}: p99", duration(ours[1]), f"etcd {duration(theirs[1])}", theirs[1] / ours[1]),
        ResultRow(
            f"{what}: CPU of each", duration(told.cpu), f"etcd {duration(etcds.cpu)}", etcds.cpu / max(told.cpu, 1e-9)
        ),
        ResultRow(
            f"{told.watchers:,} watchers: memory of each",
            memory_size(told.memory),
            f"etcd {memory_size(etcds.memory)}",
            etcds.memory / max(told.memory, 1.0),
        ),
    ]
