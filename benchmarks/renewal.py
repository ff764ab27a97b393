"""A renewal of one lease by itself, as programs without a host agent send it, beside a bare server.

64 programs renew their own leases over connections of their own, each with a known token. The peer is uvicorn that
answers the same requests with two bytes, which is the cost of the HTTP server. Rounds are interleaved.
"""

from __future__ import annotations

from typing import Final

from benchmarks.harness import callers, load, socket_callers, workload
from benchmarks.harness.load import CALLERS, MeasuredLoad
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BareServer, BenchmarkNode, sqlite
from benchmarks.harness.table import Result, ResultRow, duration, log_progress, rate

MAX_CPU: Final = 16e-6
MIN_RATIO: Final = 1.3


def run(options: RunOptions) -> list[Result]:
    with BenchmarkNode(options.folder, sqlite(options.folder)) as node, BareServer(options.folder, b"ok") as bare:
        token = node.token_header()
        names = [(f"s-{number:02}", f"i-{number:06}") for number in range(CALLERS)]
        puts = workload.puts(node.port, iter(names), token, ttl=30.0, grace=600.0)
        done = callers.call_count(node.port, puts, 8, callers.Http1Connection, count=CALLERS)
        if done.failed:
            raise load.WrongAnswers(f"{done.failed} of {CALLERS} registrations failed")
        return _rows(*_rounds(options, node, bare, names, token))


def _rounds(
    options: RunOptions, node: BenchmarkNode, bare: BareServer, names: list[tuple[str, str]], token: bytes
) -> tuple[list[MeasuredLoad], list[MeasuredLoad]]:
    ours: list[MeasuredLoad] = []
    bares: list[MeasuredLoad] = []
    count = options.count(100_000, 2_000)
    for turn in range(options.count(5, 1)):
        log_progress(f"  round {turn + 1}")
        for server, rounds in ((node, ours), (bare, bares)):
            requests = [workload.renewal(server.port, service, id, token) for service, id in names]
            rounds.append(
                load.measure(
                    server,
                    lambda port=server.port, requests=requests: socket_callers.call_count(port, requests, count=count),  # type: ignore[misc]
                )
            )
    return ours, bares


def _rows(ours: list[MeasuredLoad], bares: list[MeasuredLoad]) -> list[Result]:
    cpu, bare_cpu = load.median_of(ours, load.cpu), load.median_of(bares, load.cpu)
    speed, slowest = load.median_of(ours, load.speed), load.median_of(ours, load.p99)
    cheaper = 1 / load.ratio(ours, bares, load.cpu)
    label = f"a renewal by itself, {CALLERS} callers"
    return [
        ResultRow(
            f"{label}: CPU",
            duration(cpu),
            f"bare uvicorn {duration(bare_cpu)}",
            cheaper,
            f"≤ {duration(MAX_CPU)}, ≥ {MIN_RATIO}x",
            cpu <= MAX_CPU and cheaper >= MIN_RATIO,
            (("cpu", cpu), ("bare_cpu", bare_cpu)),
        ),
        ResultRow(
            f"{label}: rate",
            rate(speed),
            f"bare uvicorn {rate(load.median_of(bares, load.speed))}",
            load.ratio(ours, bares, load.speed),
            values=(("rate", speed),),
        ),
        ResultRow(
            f"{label}: p99",
            duration(slowest),
            f"bare uvicorn {duration(load.median_of(bares, load.p99))}",
            1 / load.ratio(ours, bares, load.p99),
            values=(("p99", slowest),),
        ),
    ]
