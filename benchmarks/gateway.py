"""Requests through the gateway, 64 callers at a time, beside a static Envoy, nginx and HAProxy in front of the same two
instances. Rounds are interleaved, and ratios are taken round by round. CPU is the proxy's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import repeat
from typing import Final
from urllib.request import urlopen

from benchmarks.harness import callers, h2load, load, proxies
from benchmarks.harness.load import CALLERS, LoadRunResult, MeasuredLoad
from benchmarks.harness.processes import BenchmarkUnavailable
from benchmarks.harness.proxies import GatewayProxy, ProxyProcess, ServiceTarget, featured_envoy, static_envoy
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode
from benchmarks.harness.table import Result, ResultRow, SkippedResult, duration, log_progress, rate

MIN_RATE_RATIO: Final = 0.98
"""Of a static Envoy's rate."""


def run(setting: RunOptions) -> list[Result]:
    skipped: list[Result] = []
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(setting.folder, "memory:"))
        targets = [stack.enter_context(ServiceTarget(setting.folder)) for _ in range(2)]
        for number, target in enumerate(targets):
            target.register(node, f"o{number}")
        ours = stack.enter_context(GatewayProxy(setting.folder, node))
        logging = stack.enter_context(GatewayProxy(setting.folder, node, access_log="json"))
        ports = [target.port for target in targets]
        peers = [stack.enter_context(make(setting.folder, ports)) for make in (static_envoy, featured_envoy)]
        for make in (proxies.nginx, proxies.haproxy):
            try:
                peers.append(stack.enter_context(make(setting.folder, ports)))
            except BenchmarkUnavailable as trouble:
                skipped.append(SkippedResult(f"requests through {make.__name__}", str(trouble)))
        found = _rounds(setting, [ours, logging, *peers])
    mine, logged, *others = found.values()
    rows = [row for peer, theirs in zip(peers, others, strict=True) for row in _beside(peer.name, mine, theirs)]
    return [*rows, _logged(mine, logged), *skipped]


def _rounds(setting: RunOptions, through: list[ProxyProcess]) -> dict[ProxyProcess, list[MeasuredLoad]]:
    found: dict[ProxyProcess, list[MeasuredLoad]] = {proxy: [] for proxy in through}
    many = setting.count(10_000, 1_000)
    for proxy in through:
        proxy.wait_until(lambda url=proxy.url: _answers(url))  # type: ignore[misc]
        _send(setting, proxy, many // 10)
    for turn in range(setting.count(12, 1)):
        log_progress(f"  round {turn + 1}")
        for proxy, measured in found.items():
            measured.append(load.measure(proxy, lambda proxy=proxy: _send(setting, proxy, many)))  # type: ignore[misc]
    return found


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0) as answer:
            body: bytes = answer.read()
    except OSError:
        return False
    return body == b"ok"


def _send(setting: RunOptions, proxy: ProxyProcess, many: int) -> LoadRunResult:
    if h2load.is_installed():
        return h2load.get(proxy.url, CALLERS, many, setting.folder)
    request = f"GET /{proxies.SERVICE}/ HTTP/1.1\r\nhost: 127.0.0.1:{proxy.port}\r\n\r\n".encode()
    return callers.call_count(proxy.port, repeat(request), CALLERS, callers.Http1Connection, count=many)


def _beside(name: str, ours: list[MeasuredLoad], theirs: list[MeasuredLoad]) -> list[ResultRow]:
    faster = load.ratio(ours, theirs, load.speed)
    aim = name.startswith("static")
    return [
        ResultRow(
            f"through the gateway, beside {name}: rate",
            rate(load.median_of(ours, load.speed)),
            f"{name} {rate(load.median_of(theirs, load.speed))}",
            faster,
            f"≥ {MIN_RATE_RATIO}x" if aim else "",
            faster >= MIN_RATE_RATIO if aim else None,
            (("rate", load.median_of(ours, load.speed)), ("peer_rate", load.median_of(theirs, load.speed))),
        ),
        _cost(f"through the gateway, beside {name}: CPU a request", name, ours, theirs, load.cpu),
        _cost(f"through the gateway, beside {name}: p99", name, ours, theirs, load.p99),
    ]


def _cost(
    what: str, name: str, ours: list[MeasuredLoad], theirs: list[MeasuredLoad], of: Callable[[MeasuredLoad], float]
) -> ResultRow:
    mine, peers = load.median_of(ours, of), load.median_of(theirs, of)
    values = (("ours", mine), ("peer", peers))
    return ResultRow(what, duration(mine), f"{name} {duration(peers)}", 1 / load.ratio(ours, theirs, of), values=values)


def _logged(ours: list[MeasuredLoad], logged: list[MeasuredLoad]) -> ResultRow:
    dearer = load.ratio(logged, ours, load.cpu)
    words = f"{duration(load.median_of(logged, load.cpu))}, {dearer:.2f} of the cost without"
    return ResultRow(
        "through the gateway with its access log, as JSON: CPU a request", words, values=(("dearer", dearer),)
    )
