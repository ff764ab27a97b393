"""The cost of TLS and tokens: the same node with `--secure`, beside one in plain text without tokens.

Both have the same instances and are called by the same callers, in interleaved rounds. A new connection is a TLS 1.3
handshake and one look-up.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from benchmarks.harness import callers, load, workload
from benchmarks.harness.load import CALLERS, LoadRunResult, MeasuredLoad
from benchmarks.harness.processes import MeasuredProcess
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode, SecureBenchmarkNode, sqlite
from benchmarks.harness.table import Result, ResultRow, duration, log_progress, rate
from benchmarks.register import names

INSTANCES: Final = 100


@dataclass(frozen=True, slots=True)
class CalledNode:
    """A node, and how it is called."""

    process: MeasuredProcess
    port: int
    headers: bytes
    """The lines of every request that prove who calls."""
    context: ssl.SSLContext | None

    @property
    def look_up(self) -> bytes:
        """The HTTP/1.1 request of a look-up."""
        path = f"/api/v1/services/{workload.SERVICE}"
        return b"%b%b\r\n" % (f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n".encode(), self.headers)

    def puts(self, instances: Iterator[tuple[str, str]]) -> Iterator[bytes]:
        """Yields the requests that register these (service, id)."""
        for number, (service, id) in enumerate(instances):
            yield workload.put(self.port, service, id, workload.body(number), self.headers)

    def measure(self, run: Callable[[], LoadRunResult]) -> MeasuredLoad:
        """Runs a load and measures what it costs the node."""
        return load.measure(self.process, run)


def run(options: RunOptions) -> list[Result]:
    with (
        BenchmarkNode(options.folder, sqlite(options.folder)) as plain,
        SecureBenchmarkNode(options.folder, sqlite(options.folder, "secure")) as secure,
    ):
        nodes = (
            CalledNode(secure, secure.port, secure.headers, secure.context),
            CalledNode(plain, plain.port, b"", None),
        )
        for node in nodes:
            ids = ((workload.SERVICE, f"i-{number:06}") for number in range(INSTANCES))
            callers.call_count(
                node.port, node.puts(ids), 8, callers.Http1Connection, count=INSTANCES, context=node.context
            )
        return _rows(*_rounds(options, *nodes))


def _rounds(
    options: RunOptions, secure: CalledNode, plain: CalledNode
) -> tuple[dict[str, list[MeasuredLoad]], dict[str, list[MeasuredLoad]]]:
    ours: dict[str, list[MeasuredLoad]] = {}
    plains: dict[str, list[MeasuredLoad]] = {}
    lookups, handshakes = options.count(20_000, 1_000), options.count(2_000, 200)
    seconds = options.seconds(3.0, 0.5)
    registrations = {secure.port: secure.puts(names()), plain.port: plain.puts(names())}
    for turn in range(options.count(5, 1)):
        log_progress(f"  round {turn + 1}")
        for node, results in ((secure, ours), (plain, plains)):
            results.setdefault("look-up", []).append(_look_up(node, lookups))
            results.setdefault("registration", []).append(_register(node, registrations[node.port], seconds))
            results.setdefault("new connection", []).append(_connect(node, handshakes))
    return ours, plains


def _look_up(node: CalledNode, count: int) -> MeasuredLoad:
    return node.measure(
        lambda: callers.call_count(
            node.port, repeat(node.look_up), CALLERS, callers.Http1Connection, count=count, context=node.context
        )
    )


def _register(node: CalledNode, requests: Iterator[bytes], seconds: float) -> MeasuredLoad:
    return node.measure(
        lambda: callers.call_for_seconds(
            node.port, requests, CALLERS, callers.Http1Connection, seconds=seconds, context=node.context
        )
    )


def _connect(node: CalledNode, count: int) -> MeasuredLoad:
    return node.measure(
        lambda: callers.connect_each(node.port, node.look_up, CALLERS, count=count, context=node.context)
    )


def _rows(ours: dict[str, list[MeasuredLoad]], plains: dict[str, list[MeasuredLoad]]) -> list[Result]:
    rows: list[Result] = []
    for name, rounds in ours.items():
        cpu, plain_cpu = load.median_of(rounds, load.cpu), load.median_of(plains[name], load.cpu)
        speed, plain_speed = load.median_of(rounds, load.speed), load.median_of(plains[name], load.speed)
        rows += [
            ResultRow(
                f"{name} with TLS and a token: CPU",
                duration(cpu),
                f"plain text {duration(plain_cpu)}",
                1 / load.ratio(rounds, plains[name], load.cpu),
                values=(("cpu", cpu), ("plain_cpu", plain_cpu)),
            ),
            ResultRow(
                f"{name} with TLS and a token, {CALLERS} callers: rate",
                rate(speed),
                f"plain text {rate(plain_speed)}",
                load.ratio(rounds, plains[name], load.speed),
                values=(("rate", speed), ("plain_rate", plain_speed)),
            ),
        ]
    return rows
