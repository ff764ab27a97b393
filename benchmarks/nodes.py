"""Three nodes over one etcd: a change told by another node, registrations through all of them, and a node that dies."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, islice
from random import Random
from typing import Any, Final

from adsum.client.client import Client
from adsum.client.views.resolver import Resolver
from benchmarks.fanout import FanoutResult, registration_changes, watch_protocol
from benchmarks.harness import callers, etcd_messages, http2, load, workload
from benchmarks.harness.load import CALLERS, LoadRunResult, MeasuredLoad, WrongAnswers, quantile
from benchmarks.harness.processes import BenchmarkUnavailable
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import NO_ETCD, BenchmarkEtcd, BenchmarkNode, has_etcd
from benchmarks.harness.table import Result, ResultRow, duration, durations, log_progress, rate
from benchmarks.harness.watcher_pool import WatcherPool
from benchmarks.register import names, puts

NODES: Final = 3
WATCHERS: Final = 1_000
RENEWERS: Final = 600
FOLLOWERS: Final = 100
SHARDS: Final = 256
AGREEMENT_TIMEOUT: Final = 60.0
"""Seconds within which nodes must have shared what is to be kept."""


def run(setting: RunOptions) -> list[Result]:
    if not has_etcd():
        raise BenchmarkUnavailable(NO_ETCD)
    with ExitStack() as stack:
        peer = stack.enter_context(BenchmarkEtcd(setting.folder))
        store = f"etcd://127.0.0.1:{peer.port}"
        nodes = [stack.enter_context(BenchmarkNode(setting.folder, store)) for _ in range(NODES)]
        _until_shared(nodes)
        results: list[Result] = [_told(setting, nodes), *_registered(setting, nodes, peer)]
        results += [_followed(setting, nodes), _renewed(setting, nodes)]
        return [*results, *asyncio.run(_failed_over(setting, nodes))]


def _told(setting: RunOptions, nodes: Sequence[BenchmarkNode]) -> ResultRow:
    count = setting.count(WATCHERS, 50)
    change = registration_changes(nodes[0])
    change(range(100))
    told = FanoutResult(count, 0.0)
    with WatcherPool(watch_protocol(nodes[-1]), nodes[-1].port) as crowd:
        crowd.open(count)
        for turn in range(setting.count(20, 2)):
            told.add(crowd.deliver([100 + turn], change))
    spread = told.percentiles()
    values = tuple(zip(("p50", "p99", "last"), spread, strict=True))
    return ResultRow(
        f"one change to {count:,} watchers of another node: p50 / p99 / last", durations(spread), values=values
    )


def _registered(setting: RunOptions, nodes: Sequence[BenchmarkNode], peer: BenchmarkEtcd) -> list[ResultRow]:
    """As many connections in both rounds: spread over the nodes, or all at etcd itself."""
    seconds = setting.seconds(4.0, 0.5)
    every = names()
    requests = [workload.puts(node.port, every) for node in nodes]
    raw, kind = puts(), http2.GrpcConnection.for_method(etcd_messages.PUT)
    ours: list[LoadRunResult] = []
    theirs: list[MeasuredLoad] = []
    for turn in range(setting.count(5, 1)):
        log_progress(f"  round {turn + 1}")
        with ThreadPoolExecutor(NODES) as threads:
            ours.append(
                _joined(
                    list(
                        threads.map(
                            lambda pair: callers.call_for_seconds(
                                pair[0].port, pair[1], CALLERS // NODES, callers.Http1Connection, seconds=seconds
                            ),
                            zip(nodes, requests, strict=True),
                        )
                    )
                )
            )
        theirs.append(
            load.measure(
                peer, lambda: callers.call_for_seconds(peer.port, raw, CALLERS // NODES * NODES, kind, seconds=seconds)
            )
        )
    mine = [MeasuredLoad(each, 0.0) for each in ours]
    speed, slowest = load.median_of(mine, load.speed), load.median_of(mine, load.p99)
    refused = sum(each.failed for each in ours)
    what = f"registrations through {NODES} nodes, {CALLERS // NODES * NODES} callers"
    words = f"{rate(speed)}{f', {refused} refused' if refused else ''}"
    peers = f"etcd puts {rate(load.median_of(theirs, load.speed))}"
    return [
        ResultRow(f"{what}: rate", words, peers, load.ratio(mine, theirs, load.speed), values=(("rate", speed),)),
        ResultRow(f"{what}: p99", duration(slowest), f"etcd {duration(load.median_of(theirs, load.p99))}"),
    ]


def _followed(setting: RunOptions, nodes: Sequence[BenchmarkNode]) -> ResultRow:
    """What a change costs the node that writes it, and what each of the others."""
    count = setting.count(4_000, 200)
    before = [node.cpu() for node in nodes]
    done = callers.call_count(
        nodes[0].port, workload.puts(nodes[0].port, names()), CALLERS, callers.Http1Connection, count=count
    )
    _until_agreed(nodes)
    spent = [(node.cpu() - was) / done.requests for node, was in zip(nodes, before, strict=True)]
    writer, follower = spent[0], sum(spent[1:]) / len(spent[1:])
    values = (("writer", writer), ("follower", follower))
    return ResultRow(
        "a registration: CPU of the node that writes it, and of each other",
        durations((writer, follower)),
        values=values,
    )


def _until_agreed(nodes: Sequence[BenchmarkNode]) -> None:
    deadline = time.monotonic() + AGREEMENT_TIMEOUT
    while len({json.loads(node.get("/api/v1/status"))["revision"] for node in nodes}) > 1:
        if time.monotonic() > deadline:
            raise BenchmarkUnavailable("the nodes don't come to one revision")
        time.sleep(0.05)


def _renewed(setting: RunOptions, nodes: Sequence[BenchmarkNode]) -> ResultRow:
    """Every program renews for itself, at any node; two of three renewals have to be passed on."""
    count, services = setting.count(3_000, 300), 300
    for some in _spread_over(nodes, workload.puts(nodes[0].port, workload.spread(count, services)), count):
        if some.failed:
            raise WrongAnswers(f"{some.failed} registrations failed")
    names = list(workload.spread(count, services))
    texts = cycle(workload.renewal(nodes[0].port, service, id) for service, id in names)
    before = sum(node.cpu() for node in nodes)
    loads = _spread_over(nodes, texts, setting.count(30_000, 600))
    spent = sum(node.cpu() for node in nodes) - before
    if failed := sum(each.failed for each in loads):
        raise WrongAnswers(f"{failed} renewals failed")
    each = spent / sum(load.requests for load in loads)
    what = f"renewals one by one through {NODES} nodes, {RENEWERS} programs: CPU of all nodes each"
    return ResultRow(what, duration(each), values=(("cpu", each),))


def _spread_over(nodes: Sequence[BenchmarkNode], requests: Iterator[bytes], count: int) -> list[LoadRunResult]:
    """So many of the requests, at all nodes at once, from `RENEWERS` connections."""
    share = count // len(nodes)
    parts = [list(islice(requests, share)) for _ in nodes]
    with ThreadPoolExecutor(len(nodes)) as threads:
        return list(
            threads.map(
                lambda pair: callers.call_count(
                    pair[0].port, iter(pair[1]), RENEWERS // NODES, callers.Http1Connection, count=share
                ),
                zip(nodes, parts, strict=True),
            )
        )


def _joined(parts: Sequence[LoadRunResult]) -> LoadRunResult:
    """What several loads were together; of delays the worst."""
    return LoadRunResult(
        requests=sum(part.requests for part in parts),
        failed=sum(part.failed for part in parts),
        took=max(part.took for part in parts),
        p50=max(part.p50 for part in parts),
        p99=max(part.p99 for part in parts),
        answer_bytes=parts[0].answer_bytes,
    )


async def _failed_over(setting: RunOptions, nodes: Sequence[BenchmarkNode]) -> list[ResultRow]:
    """From kill -9 of a node until the others keep what it kept, and until those who watched it hear another one."""
    logging.getLogger("adsum").setLevel(logging.ERROR)  # That the node is gone is no news here.
    rng = Random(1)
    urls = [f"http://127.0.0.1:{node.port}" for node in nodes]
    clients: list[Client] = []
    while len(clients) < setting.count(FOLLOWERS, 10):
        client = Client(urls, cache=False, rng=rng)
        if client.api.nodes.current(0.0) == urls[0]:
            clients.append(client)
    try:
        resolvers = [client.resolver("orders") for client in clients]
        await asyncio.gather(*(_until(resolver, connected=True) for resolver in resolvers))
        began = time.monotonic()
        sharing = asyncio.create_task(asyncio.to_thread(_adopted, nodes))
        resumed = sorted(await asyncio.gather(*(_resumed(resolver, began) for resolver in resolvers)))
        took = await sharing - began
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    spread = (quantile(resumed, 0.5), quantile(resumed, 0.99), resumed[-1])
    values = tuple(zip(("p50", "p99", "last"), spread, strict=True))
    what = f"a node is killed: until {len(clients)} who watched it hear another one: p50 / p99 / last"
    return [
        ResultRow("a node is killed: until others keep what it kept", duration(took), values=(("took", took),)),
        ResultRow(what, durations(spread), values=values),
    ]


def _adopted(nodes: Sequence[BenchmarkNode]) -> float:
    """Kill the first; when the others kept what it kept."""
    nodes[0].kill()
    _until_shared(nodes[1:])
    return time.monotonic()


async def _resumed(resolver: Resolver, began: float) -> float:
    """Seconds until the watch was lost and there is another one."""
    await _until(resolver, connected=False)
    await _until(resolver, connected=True)
    return time.monotonic() - began


async def _until(resolver: Resolver, *, connected: bool) -> None:
    while resolver.connected is not connected:  # noqa: ASYNC110 - ten milliseconds are exact enough
        await asyncio.sleep(0.01)


def _until_shared(nodes: Sequence[BenchmarkNode]) -> None:
    deadline = time.monotonic() + AGREEMENT_TIMEOUT
    while not all(_shares(node, len(nodes)) for node in nodes):
        if time.monotonic() > deadline:
            raise BenchmarkUnavailable("the nodes don't share what is to be kept")
        time.sleep(0.01)


def _shares(node: BenchmarkNode, count: int) -> bool:
    status: dict[str, Any] = json.loads(node.get("/api/v1/status"))
    shares = [status.get("shards", 0), *(peer["shards"] for peer in status.get("peers", []))]
    return len(shares) == count and sum(shares) == SHARDS
