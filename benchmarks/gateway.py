"""Requests of 64 callers through the gateway, beside a static Envoy, nginx and HAProxy in front of the same instances.

Rounds are interleaved, and ratios are taken round by round. Only the CPU of the proxy counts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import repeat
from typing import Final
from urllib.request import urlopen

from benchmarks.harness import callers, h2load, load, proxies
from benchmarks.harness.load import CALLERS, LoadRunResult, MeasuredLoad
from benchmarks.harness.programs import ProgramMissing
from benchmarks.harness.proxies import GatewayProxy, ProxyProcess, ServiceTarget, featured_envoy, static_envoy
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, log_progress, rate

MIN_RATE_RATIO: Final = 0.98
"""The aim: the gateway's rate by that of a static Envoy."""


def run(options: RunOptions) -> list[Result]:
    skipped: list[Result] = []
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(options.folder, "memory:"))
        targets = [stack.enter_context(ServiceTarget(options.folder)) for _ in range(2)]
        for number, target in enumerate(targets):
            target.register(node, f"o{number}")
        ours = stack.enter_context(GatewayProxy(options.folder, node))
        logging = stack.enter_context(GatewayProxy(options.folder, node, access_log="json"))
        ports = [target.port for target in targets]
        peers = [stack.enter_context(make(options.folder, ports)) for make in (static_envoy, featured_envoy)]
        for make in (proxies.nginx, proxies.haproxy):
            try:
                peers.append(stack.enter_context(make(options.folder, ports)))
            except ProgramMissing as error:
                skipped.append(SkippedResult(f"requests through {make.__name__}", str(error)))
        rounds = _rounds(options, [ours, logging, *peers])
    own, logged, *others = rounds.values()
    rows = [row for peer, theirs in zip(peers, others, strict=True) for row in _beside(peer.name, own, theirs)]
    return [*rows, _access_log_row(own, logged), *skipped]


def _rounds(options: RunOptions, proxies: list[ProxyProcess]) -> dict[ProxyProcess, list[MeasuredLoad]]:
    rounds: dict[ProxyProcess, list[MeasuredLoad]] = {proxy: [] for proxy in proxies}
    many = options.count(10_000, 1_000)
    for proxy in proxies:
        proxy.wait_until(lambda url=proxy.url: _answers(url))  # type: ignore[misc]
        _send(options, proxy, many // 10)
    for turn in range(options.count(12, 1)):
        log_progress(f"  round {turn + 1}")
        for proxy, measured in rounds.items():
            measured.append(load.measure(proxy, lambda proxy=proxy: _send(options, proxy, many)))  # type: ignore[misc]
    return rounds


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0) as answer:
            body: bytes = answer.read()
    except OSError:
        return False
    return body == b"ok"


def _send(options: RunOptions, proxy: ProxyProcess, many: int) -> LoadRunResult:
    if h2load.is_installed():
        return h2load.get(proxy.url, CALLERS, many, options.folder)
    request = f"GET /{proxies.SERVICE}/ HTTP/1.1\r\nhost: 127.0.0.1:{proxy.port}\r\n\r\n".encode()
    return callers.call_count(proxy.port, repeat(request), CALLERS, callers.Http1Connection, count=many)


def _beside(name: str, ours: list[MeasuredLoad], theirs: list[MeasuredLoad]) -> list[ResultRow]:
    faster = load.ratio(ours, theirs, load.speed)
    has_aim = name.startswith("static")
    return [
        ResultRow(
            f"through the gateway, beside {name}: rate",
            rate(load.median_of(ours, load.speed)),
            f"{name} {rate(load.median_of(theirs, load.speed))}",
            faster,
            f"≥ {MIN_RATE_RATIO}x" if has_aim else "",
            faster >= MIN_RATE_RATIO if has_aim else None,
            (("rate", load.median_of(ours, load.speed)), ("peer_rate", load.median_of(theirs, load.speed))),
        ),
        _cost(f"through the gateway, beside {name}: CPU per request", name, ours, theirs, load.cpu),
        _cost(f"through the gateway, beside {name}: p99", name, ours, theirs, load.p99),
    ]


def _cost(
    label: str, name: str, ours: list[MeasuredLoad], theirs: list[MeasuredLoad], metric: Callable[[MeasuredLoad], float]
) -> ResultRow:
    own, peer = load.median_of(ours, metric), load.median_of(theirs, metric)
    values = (("ours", own), ("peer", peer))
    ratio = 1 / load.ratio(ours, theirs, metric)
    return ResultRow(label, duration(own), f"{name} {duration(peer)}", ratio, values=values)


def _access_log_row(ours: list[MeasuredLoad], logged: list[MeasuredLoad]) -> ResultRow:
    cost = load.ratio(logged, ours, load.cpu)
    text = f"{duration(load.median_of(logged, load.cpu))}, {cost:.2f} of the cost without it"
    return ResultRow("through the gateway with a JSON access log: CPU per request", text, values=(("cost", cost),))
