"""Fan-out: idle watchers, programs that follow several services, one change to all watchers, and a burst of changes.

The watchers are connections of another process that reads as fast as it can. A delay is the time from sending the
registration, so that its commit is included, until a watcher has read the change; delays are pooled over all watchers
and changes. In a burst, each change is made by a caller of its own. etcd has fewer watchers, since each of its streams
takes a hundred kilobytes.

A heartbeat is compared with a process that does nothing but send the same bytes over as many connections, which the
same watchers read. A program opens its watch with the request of the client library.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, sleep
from typing import Final
from urllib.parse import urlencode

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.native.watching.watch_connection import WatchRequest
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.dialects.native.events.heartbeat import SLOT_SECONDS
from adsum.dialects.native.events.watch_events import encode_event
from adsum.servers.http.chunk_writer import encode_chunk
from benchmarks.harness import callers, etcd_messages, http2, workload
from benchmarks.harness.load import LoadRunResult, WrongAnswers, quantile
from benchmarks.harness.processes import MeasuredProcess
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import NO_ETCD, BareSender, BenchmarkEtcd, BenchmarkNode, has_etcd, sqlite
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, durations, log_progress, memory_size
from benchmarks.harness.watcher_pool import Deliveries, WatcherPool, WatchProtocol, record_send_times
from benchmarks.harness.watcher_process import NUMBER_PLACEHOLDER

WATCHERS: Final = 10_000
ETCD_WATCHERS: Final = 1_000
PROGRAMS: Final = 2_000
FOLLOWED_SERVICES: Final = 5
MAX_PROGRAM_MEMORY: Final = 16 * 1024
"""Bytes of the node's memory for a program that follows `FOLLOWED_SERVICES`."""
MAX_HEARTBEAT_RATIO: Final = 2.0
"""The CPU of a heartbeat, as a multiple of a bare send."""
MAX_P99_DELAY: Final = 0.15
SPARE_FILES: Final = 500
"""Open files that the node needs beside those of its watchers."""
IDLE_SECONDS: Final = 15.0
"""Seconds for which idle watchers are measured: five heartbeats."""
MAX_IDLE_SHARE: Final = 0.05
"""The share of a core that `WATCHERS` idle watchers may use."""
INSTANCES: Final = 100
SAMPLE_EPOCH: Final = "0123456789abcdef"
"""An epoch as long as those of registries."""
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
    results += [*_fan_out(options, count), _programs(options, min(count, options.count(PROGRAMS, 50)))]
    if not has_etcd():
        return [*results, SkippedResult("watches beside etcd's", NO_ETCD)]
    return [*results, *_fan_out_beside_etcd(options, min(count, options.count(ETCD_WATCHERS, 50)))]


def _fan_out(options: RunOptions, count: int) -> list[Result]:
    bare_send = _bare_send(options, count)
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
    heartbeat = idle * DEFAULT_HEARTBEAT / count
    return [_idle_row(count, idle), _heartbeat_row(heartbeat, bare_send), *_rows(result), _burst(count, burst)]


def _bare_send(options: RunOptions, count: int) -> float:
    """Returns the CPU of one `send` of a process that sends as many heartbeats and does nothing else, in seconds."""
    body = wire.encode(wire.WatchSynced(INSTANCES, age=float("0")))  # Not the default, which would be left out.
    data = encode_chunk(encode_event("synced", body, id=f"{SAMPLE_EPOCH}:{INSTANCES}"))
    slots = round(DEFAULT_HEARTBEAT / SLOT_SECONDS)
    with BareSender(options.folder, data, DEFAULT_HEARTBEAT, slots) as sender:
        alone = _idle(sender, options.seconds(IDLE_SECONDS / 5, 1.0))
        with WatcherPool(WatchProtocol(b"x", b"event: synced", b"event: synced"), sender.port) as pool:
            log_progress(f"  {count:,} watchers of bare sends")
            pool.open(count)
            share = _idle(sender, options.seconds(IDLE_SECONDS, 4.0)) - alone
    return share * DEFAULT_HEARTBEAT / count


def _programs(options: RunOptions, count: int) -> ResultRow:
    """Measures what a node spends on a program that follows several services."""
    with BenchmarkNode(options.folder, sqlite(options.folder, "programs")) as node:
        for number in range(FOLLOWED_SERVICES):
            node.put(f"/api/v1/services/service-{number}/instances/i1", {"port": 8000})
        with WatcherPool(_program_protocol(node), node.port) as pool:
            log_progress(f"  {count:,} programs, each with {FOLLOWED_SERVICES} services")
            pool.open(min(count, 100))  # The first ones take memory that they share with the others.
            result = _open(node, pool, count)
            seconds = options.seconds(3 * DEFAULT_HEARTBEAT, DEFAULT_HEARTBEAT)
            heartbeats = pool.count_answers(seconds) / pool.count / (seconds / DEFAULT_HEARTBEAT)
    return ResultRow(
        f"a program that follows {FOLLOWED_SERVICES} services: streams, memory, heartbeats in {DEFAULT_HEARTBEAT:g} s",
        f"1, {memory_size(result.memory)}, {heartbeats:.2f}",
        aim=f"1, ≤ {memory_size(MAX_PROGRAM_MEMORY)}, 1",
        is_met=result.memory <= MAX_PROGRAM_MEMORY and heartbeats < 1.2,
        values=(("streams", 1.0), ("memory", result.memory), ("heartbeats", heartbeats)),
    )


def _program_protocol(node: BenchmarkNode) -> WatchProtocol:
    """Returns the watch protocol of a program that uses the client library, each with an id of its own."""
    services = tuple(f"service-{number}" for number in range(FOLLOWED_SERVICES))
    request = WatchRequest(services, None, ConsumerIdentity("checkout.py[4711]@web1"))
    query = [
        (name, f"{value[:24]}{NUMBER_PLACEHOLDER.decode()}" if name == "consumer" else value)
        for name, value in request.params()
    ]
    headers = {"Host": f"127.0.0.1:{node.port}", "Adsum-Actor": "root@web1", **request.headers()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    text = f"GET /api/v1/watch?{urlencode(query, safe='@')} HTTP/1.1\r\n{lines}\r\n"
    return WatchProtocol(text.encode(), b"event: synced", b"event: synced")


def _heartbeat_row(heartbeat: float, bare_send: float) -> ResultRow:
    ratio = bare_send / max(heartbeat, 1e-9)
    return ResultRow(
        "a heartbeat to an idle watcher: CPU, beside a bare send of the same bytes",
        duration(max(heartbeat, 0.0)),
        f"send {duration(max(bare_send, 0.0))}",
        ratio,
        aim=f"≤ {MAX_HEARTBEAT_RATIO:g} sends",
        is_met=ratio >= 1 / MAX_HEARTBEAT_RATIO,
        values=(("heartbeat", heartbeat), ("send", bare_send)),
    )


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
