"""Fan-out: idle watchers, one change to all watchers of a service, and a burst of a hundred changes.

The watchers are connections of another process that reads as fast as it can. A delay is the time from sending the
registration, so that its commit is included, until a watcher has read the change; delays are pooled over all watchers
and changes. In a burst, each change is made by a caller of its own. etcd has fewer watchers, since each of its streams
takes a hundred kilobytes.
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
"""Open files that the node needs beside those of its watchers."""
IDLE_SECONDS: Final = 15.0
"""Seconds for which idle watchers are measured: five heartbeats."""
MAX_IDLE_SHARE: Final = 0.05
"""The share of a core that `WATCHERS` idle watchers may use."""
INSTANCES: Final = 100
PREFIX: Final = b"bench/orders/"

Change = Callable[[Sequence[int]], list[float]]
"""Makes a change for each mark, and returns the times at which they were sent."""


@dataclass(slots=True)
class FanoutResult:
    """The results of one pool of watchers: memory and CPU of the server for each watcher, in bytes and seconds."""

    watchers: int
    memory: float
    cpu: float = 0.0
    delays: list[float] = field(default_factory=list)

    def add(self, deliveries: Deliveries) -> None:
        self.delays += [at - deliveries.sent_at[0] for at in deliveries.received_at]

    def percentiles(self) -> tuple[float, float, float]:
        """Returns the p50, the p99 and the maximum of the delays."""
        delays = sorted(self.delays)
        return quantile(delays, 0.5), quantile(delays, 0.99), delays[-1]


def run(options: RunOptions) -> list[Result]:
    wanted = options.count(WATCHERS, 200)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(wanted, limit - SPARE_FILES)
    results: list[Result] = []
    if count < wanted:
        results.append(
            SkippedResult(f"{wanted:,} watchers", f"only {limit:,} files may be open, so there are {count:,} instead")
        )
    results += _fan_out(options, count)
    if not has_etcd():
        return [*results, SkippedResult("watches beside etcd's", NO_ETCD)]
    return [*results, *_fan_out_beside_etcd(options, min(count, options.count(ETCD_WATCHERS, 50)))]


def _fan_out(options: RunOptions, count: int) -> list[Result]:
    with BenchmarkNode(options.folder, sqlite(options.folder)) as node:
        change = registration_changes(node)
        change(range(INSTANCES))
        alone = _idle(node, options.seconds(IDLE_SECONDS / 2, 2.0))
        with WatcherPool(watch_protocol(node), node.port) as pool:
            log_progress(f"  {count:,} watchers connect")
            result = _open(node, pool, count)
            log_progress("  idle watchers")
            idle = _idle(node, options.seconds(IDLE_SECONDS, 4.0)) - alone
            changes = options.count(10, 2)
            for turn in range(changes):
                log_progress(f"  change {turn + 1} of {changes}")
                _deliver(node, pool, result, [INSTANCES + turn], change)
            result.cpu /= changes
            log_progress("  a burst")
            burst = pool.deliver(range(1_000, 1_100), change)
    return [_idle_row(count, idle), *_rows(result), _burst(count, burst)]


def _fan_out_beside_etcd(options: RunOptions, count: int) -> list[Result]:
    with BenchmarkNode(options.folder, sqlite(options.folder, "beside")) as node, BenchmarkEtcd(options.folder) as peer:
        register, put = registration_changes(node), _puts(peer)
        register(range(INSTANCES))
        put(range(INSTANCES))
        with (
            WatcherPool(watch_protocol(node), node.port) as ours,
            WatcherPool(_etcd_watch_protocol(), peer.port) as theirs,
        ):
            result, etcd_result = _open(node, ours, count), _open(peer, theirs, count)
            changes = options.count(10, 2)
            for turn in range(changes):
                log_progress(f"  change {turn + 1} of {changes}, beside etcd")
                _deliver(node, ours, result, [INSTANCES + turn], register)
                _deliver(peer, theirs, etcd_result, [INSTANCES + turn], put)
    result.cpu /= changes
    etcd_result.cpu /= changes
    return _compared(result, etcd_result)


def _open(server: MeasuredProcess, pool: WatcherPool, count: int) -> FanoutResult:
    before = server.memory()
    pool.open(count)
    return FanoutResult(count, (server.memory() - before) / count)


def _idle(server: MeasuredProcess, seconds: float) -> float:
    """Returns the share of a core that the server uses while nothing changes."""
    before, began = server.cpu(), monotonic()
    sleep(seconds)  # The heartbeats fit into the socket buffers meanwhile.
    return (server.cpu() - before) / (monotonic() - began)


def _idle_row(count: int, idle: float) -> ResultRow:
    return ResultRow(
        f"{count:,} idle watchers with a heartbeat every {DEFAULT_HEARTBEAT:g} s",
        f"{idle:.1%} of a core, {duration(idle * DEFAULT_HEARTBEAT / count)} per heartbeat",
        aim=f"< {MAX_IDLE_SHARE:.0%}",
        is_met=idle < MAX_IDLE_SHARE,
        values=(("share", idle),),
    )


def _deliver(
    server: MeasuredProcess, pool: WatcherPool, result: FanoutResult, marks: Sequence[int], change: Change
) -> None:
    before = server.cpu()
    result.add(pool.deliver(marks, change))
    result.cpu += (server.cpu() - before) / result.watchers


def registration_changes(node: BenchmarkNode) -> Change:
    """Returns a function that changes instances of the service, each change with its mark."""

    def request(mark: int) -> bytes:
        registration = workload.body(mark, metadata={"version": f"mark-{mark:08}"})
        return workload.put(node.port, workload.SERVICE, f"i-{mark % INSTANCES:06}", registration)

    def change(marks: Sequence[int]) -> list[float]:
        sent: list[float] = []
        made = callers.call_count(
            node.port, record_send_times(sent, request, marks), len(marks), callers.Http1Connection, count=len(marks)
        )
        return _check_all_made(made, sent)

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
        return _check_all_made(made, sent)

    return change


def _check_all_made(made: LoadRunResult, sent: list[float]) -> list[float]:
    """Returns the times at which the changes were sent. Raises `WrongAnswers` unless all of them succeeded."""
    if made.failed or made.requests != len(sent):
        raise WrongAnswers(f"{made.requests} of {len(sent)} changes were made")
    return sent


def watch_protocol(node: BenchmarkNode) -> WatchProtocol:
    """Returns the watch protocol of the service at the node."""
    path = f"/api/v1/watch?service={workload.SERVICE}"
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{node.port}\r\naccept: text/event-stream\r\n\r\n"
    return WatchProtocol(request.encode(), b"event: synced", b"event: synced")


def _etcd_watch_protocol() -> WatchProtocol:
    call = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(etcd_messages.WATCH))
    watch = http2.frame(http2.DATA, 0, 1, http2.message(etcd_messages.watch_prefix(PREFIX)))
    settings_ack = http2.frame(http2.SETTINGS, http2.ACK, 0)
    return WatchProtocol(http2.connection_preface() + settings_ack + call + watch, etcd_messages.CREATED, b"mark-")


def _rows(result: FanoutResult) -> list[Result]:
    delays = result.percentiles()
    return [
        ResultRow(
            f"one change to {result.watchers:,} watchers: p50 / p99 / last",
            durations(delays),
            aim=f"p99 < {duration(MAX_P99_DELAY)}",
            is_met=delays[1] < MAX_P99_DELAY,
            values=tuple(zip(("p50", "p99", "last"), delays, strict=True)),
        ),
        ResultRow(
            f"{result.watchers:,} watchers: memory and CPU for each of them, per change",
            f"{memory_size(result.memory)}, {duration(result.cpu)}",
            values=(("memory", result.memory), ("cpu", result.cpu)),
        ),
    ]


def _burst(count: int, deliveries: Deliveries) -> ResultRow:
    answers = median(deliveries.answer_counts)
    seconds = deliveries.received_at[-1] - deliveries.sent_at[0]
    return ResultRow(
        f"a burst of {len(deliveries.sent_at)} changes to {count:,} watchers",
        f"{answers:.0f} events for each, the last after {duration(seconds)}",
        aim="coalesced",
        is_met=answers < len(deliveries.sent_at),
        values=(("groups", answers), ("took", seconds)),
    )


def _compared(result: FanoutResult, etcd_result: FanoutResult) -> list[Result]:
    ours, theirs = result.percentiles(), etcd_result.percentiles()
    label = f"one change to {result.watchers:,} watchers"
    return [
        ResultRow(f"{label}: p50", duration(ours[0]), f"etcd {duration(theirs[0])}", theirs[0] / ours[0]),
        ResultRow(f"{label}: p99", duration(ours[1]), f"etcd {duration(theirs[1])}", theirs[1] / ours[1]),
        ResultRow(
            f"{label}: CPU for each",
            duration(result.cpu),
            f"etcd {duration(etcd_result.cpu)}",
            etcd_result.cpu / max(result.cpu, 1e-9),
        ),
        ResultRow(
            f"{result.watchers:,} watchers: memory for each",
            memory_size(result.memory),
            f"etcd {memory_size(etcd_result.memory)}",
            etcd_result.memory / max(result.memory, 1.0),
        ),
    ]
