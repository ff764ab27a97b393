"""Look-ups: 64 callers read a service of 100 instances.

The peers are uvicorn that answers with the same bytes, which is the cost of the HTTP server, and etcd's range read of
the same 100 values. Rounds are interleaved, and ratios are taken round by round.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import repeat
from typing import Final

from benchmarks.harness import callers, etcd_messages, h2load, http2, load, programs, workload
from benchmarks.harness.load import CALLERS, LoadRunResult, MeasuredLoad
from benchmarks.harness.processes import MeasuredProcess
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import NO_ETCD, BareServer, BenchmarkEtcd, BenchmarkNode, has_etcd, sqlite
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, log_progress, rate

INSTANCES: Final = 100
MAX_CPU: Final = 40e-6
MIN_RATIO: Final = 5.0
PREFIX: Final = b"bench/orders/"


def run(options: RunOptions) -> list[Result]:
    with BenchmarkNode(options.folder, sqlite(options.folder)) as node:
        names = ((workload.SERVICE, f"i-{number:06}") for number in range(INSTANCES))
        callers.call_count(node.port, workload.puts(node.port, names), 8, callers.Http1Connection, count=INSTANCES)
        body = node.get(f"/api/v1/services/{workload.SERVICE}")
        with BareServer(options.folder, body) as bare:
            if not has_etcd():
                return [
                    *_rows(len(body), _rounds(options, node, bare, None, 0)),
                    SkippedResult("look-up beside etcd", NO_ETCD),
                ]
            with BenchmarkEtcd(options.folder) as peer:
                size = _fill(peer, body)
                return _rows(len(body), _rounds(options, node, bare, peer, size))


def _fill(peer: BenchmarkEtcd, body: bytes) -> int:
    """Puts the same instances into etcd, and returns the size of a range read's answer."""
    values = [json.dumps(instance, separators=(",", ":")).encode() for instance in json.loads(body)["instances"]]
    puts = iter([etcd_messages.put(PREFIX + b"%d" % number, value) for number, value in enumerate(values)])
    callers.call_count(peer.port, puts, 8, http2.GrpcConnection.for_method(etcd_messages.PUT), count=len(values))
    result = callers.call_count(
        peer.port,
        repeat(etcd_messages.get_prefix(PREFIX)),
        1,
        http2.GrpcConnection.for_method(etcd_messages.RANGE),
        count=1,
    )
    if result.answer_bytes < sum(map(len, values)):
        raise load.WrongAnswers("etcd does not return what was put")
    return round(result.answer_bytes)


def _rounds(
    options: RunOptions, node: BenchmarkNode, bare: BareServer, peer: BenchmarkEtcd | None, size: int
) -> tuple[list[MeasuredLoad], list[MeasuredLoad], list[MeasuredLoad]]:
    path = f"/api/v1/services/{workload.SERVICE}"
    expected = len(node.get(path))
    if not h2load.is_installed():
        log_progress(f"  {programs.missing_reason('h2load')}: the slower callers in Python are used")
    ours: list[MeasuredLoad] = []
    bares: list[MeasuredLoad] = []
    etcds: list[MeasuredLoad] = []
    requests = options.count(40_000, 2_000)
    for turn in range(options.count(5, 1)):
        log_progress(f"  round {turn + 1}")
        ours.append(_measured(node, lambda: _get(options, node.port, path, requests), expected))
        bares.append(_measured(bare, lambda: _get(options, bare.port, "/", requests), expected))
        if peer is not None:
            etcds.append(_measured(peer, lambda: _range(options, peer.port, requests // 4), size))
    return ours, bares, etcds


def _measured(server: MeasuredProcess, run: Callable[[], LoadRunResult], expected: int) -> MeasuredLoad:
    result = load.measure(server, run)
    # The size of etcd's answers depends on the number of the raft term, a varint.
    if abs(result.load.answer_bytes - expected) > 8:
        raise load.WrongAnswers(f"{server.name} answers {result.load.answer_bytes:.0f} bytes instead of {expected}")
    return result


def _get(options: RunOptions, port: int, path: str, requests: int) -> LoadRunResult:
    if h2load.is_installed():
        return h2load.get(f"http://127.0.0.1:{port}{path}", CALLERS, requests, options.folder)
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
    return callers.call_count(port, repeat(request), CALLERS, callers.Http1Connection, count=requests)


def _range(options: RunOptions, port: int, requests: int) -> LoadRunResult:
    request = etcd_messages.get_prefix(PREFIX)
    if h2load.is_installed():
        url = f"http://127.0.0.1:{port}{etcd_messages.RANGE}"
        return h2load.grpc(url, http2.message(request), CALLERS, requests, options.folder)
    return callers.call_count(
        port, repeat(request), CALLERS, http2.GrpcConnection.for_method(etcd_messages.RANGE), count=requests
    )


def _rows(size: int, rounds: tuple[list[MeasuredLoad], list[MeasuredLoad], list[MeasuredLoad]]) -> list[Result]:
    ours, bares, etcds = rounds
    cpu, speed = load.median_of(ours, load.cpu), load.median_of(ours, load.speed)
    rows: list[Result] = [
        ResultRow(
            f"look-up of {INSTANCES} instances ({size:,} B): CPU per request",
            duration(cpu),
            f"bare uvicorn {duration(load.median_of(bares, load.cpu))}",
            1 / load.ratio(ours, bares, load.cpu),
            f"≤ {duration(MAX_CPU)}",
            cpu <= MAX_CPU,
            (("cpu", cpu), ("bare_cpu", load.median_of(bares, load.cpu))),
        ),
        ResultRow(
            f"look-up by {CALLERS} callers: rate",
            rate(speed),
            f"bare uvicorn {rate(load.median_of(bares, load.speed))}",
            load.ratio(ours, bares, load.speed),
            values=(("rate", speed), ("bare_rate", load.median_of(bares, load.speed))),
        ),
    ]
    if not etcds:
        return rows
    faster = load.ratio(ours, etcds, load.speed)
    rows += [
        ResultRow(
            "look-up beside etcd's range read: CPU per request",
            duration(cpu),
            f"etcd {duration(load.median_of(etcds, load.cpu))}",
            1 / load.ratio(ours, etcds, load.cpu),
            values=(("etcd_cpu", load.median_of(etcds, load.cpu)),),
        ),
        ResultRow(
            "look-up beside etcd's range read: rate",
            rate(speed),
            f"etcd {rate(load.median_of(etcds, load.speed))}",
            faster,
            f"≥ {MIN_RATIO:.0f}x",
            faster >= MIN_RATIO,
            (("etcd_rate", load.median_of(etcds, load.speed)), ("ratio", faster)),
        ),
        _latency("look-up: p50", ours, etcds, load.p50),
        _latency("look-up: p99", ours, etcds, load.p99),
    ]
    return rows


def _latency(
    label: str, ours: list[MeasuredLoad], etcds: list[MeasuredLoad], metric: Callable[[MeasuredLoad], float]
) -> ResultRow:
    own, peer = load.median_of(ours, metric), load.median_of(etcds, metric)
    ratio = 1 / load.ratio(ours, etcds, metric)
    return ResultRow(label, duration(own), f"etcd {duration(peer)}", ratio, values=(("ours", own), ("etcd", peer)))
