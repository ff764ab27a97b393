"""Three nodes over one etcd: a change at another node, registrations through all nodes, and a node that is killed."""

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
from statistics import median
from typing import Any, Final

from adsum.client.client import Client
from adsum.client.views.resolver import Resolver
from benchmarks.fanout import FanoutResult, registration_changes, watch_protocol
from benchmarks.harness import callers, etcd_messages, http2, load, workload
from benchmarks.harness.load import CALLERS, LoadRunResult, MeasuredLoad, WrongAnswers, quantile
from benchmarks.harness.processes import BenchmarkFailed
from benchmarks.harness.programs import ProgramMissing
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
MAX_RENEWAL_CPU: Final = 35e-6
MIN_REGISTRATION_RATIO: Final = 0.5
"""The aims: seconds of CPU of a renewal, and the rate of registrations beside etcd's puts."""
AGREEMENT_TIMEOUT: Final = 60.0
"""Seconds within which the nodes must have shared the services, and must reach one revision."""


def run(options: RunOptions) -> list[Result]:
    if not has_etcd():
        raise ProgramMissing(NO_ETCD)
    with ExitStack() as stack:
        peer = stack.enter_context(BenchmarkEtcd(options.folder))
        store = f"etcd://127.0.0.1:{peer.port}"
        nodes = [stack.enter_context(BenchmarkNode(options.folder, store)) for _ in range(NODES)]
        _until_shared(nodes)
        results: list[Result] = [_fan_out(options, nodes), *_registered(options, nodes, peer)]
        results += [_followed(options, nodes), _renewed(options, nodes)]
        return [*results, *asyncio.run(_failed_over(options, nodes))]


def _fan_out(options: RunOptions, nodes: Sequence[BenchmarkNode]) -> ResultRow:
    count = options.count(WATCHERS, 50)
    change = registration_changes(nodes[0])
    change(range(100))
    result = FanoutResult(count, 0.0)
    with WatcherPool(watch_protocol(nodes[-1]), nodes[-1].port) as pool:
        pool.open(count)
        for turn in range(options.count(20, 2)):
            result.add(pool.deliver([100 + turn], change))
    spread = result.percentiles()
    values = tuple(zip(("p50", "p99", "last"), spread, strict=True))
    return ResultRow(
        f"one change to {count:,} watchers of another node: p50 / p99 / last", durations(spread), values=values
    )


def _registered(options: RunOptions, nodes: Sequence[BenchmarkNode], peer: BenchmarkEtcd) -> list[ResultRow]:
    """Measures registrations through all nodes, beside etcd's puts from the same number of connections."""
    seconds = options.seconds(4.0, 0.5)
    ids = names()
    requests = [workload.puts(node.port, ids) for node in nodes]
    raw, kind = puts(), http2.GrpcConnection.for_method(etcd_messages.PUT)
    ours: list[LoadRunResult] = []
    theirs: list[MeasuredLoad] = []
    spent, sent = [0.0, 0.0], 0
    for turn in range(options.count(5, 1)):
        log_progress(f"  round {turn + 1}")
        before = sum(node.cpu() for node in nodes), peer.cpu()
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
        spent[0] += sum(node.cpu() for node in nodes) - before[0]
        spent[1] += peer.cpu() - before[1]
        sent += ours[-1].requests
        theirs.append(
            load.measure(
                peer, lambda: callers.call_for_seconds(peer.port, raw, CALLERS // NODES * NODES, kind, seconds=seconds)
            )
        )
    own = [MeasuredLoad(result, 0.0) for result in ours]
    speed, slowest = load.median_of(own, load.speed), load.median_of(own, load.p99)
    refused = sum(result.failed for result in ours)
    label = f"registrations through {NODES} nodes, {CALLERS // NODES * NODES} callers"
    text = f"{rate(speed)}{f', {refused} refused' if refused else ''}"
    peers = f"etcd puts {rate(load.median_of(theirs, load.speed))}"
    ratio = load.ratio(own, theirs, load.speed)
    cpu = [seconds / max(1, sent) for seconds in spent]
    etcd_cpu = duration(median(part.cpu for part in theirs))
    return [
        ResultRow(
            f"{label}: rate",
            text,
            peers,
            ratio,
            aim=f"≥ {MIN_REGISTRATION_RATIO:g}x",
            is_met=ratio >= MIN_REGISTRATION_RATIO,
            values=(("rate", speed),),
        ),
        ResultRow(f"{label}: p99", duration(slowest), f"etcd {duration(load.median_of(theirs, load.p99))}"),
        ResultRow(
            f"{label}: CPU of all nodes, and of etcd",
            durations(cpu),
            f"etcd {etcd_cpu} a put",
            values=(("nodes", cpu[0]), ("etcd", cpu[1])),
        ),
    ]


def _followed(options: RunOptions, nodes: Sequence[BenchmarkNode]) -> ResultRow:
    """Measures the cost of a change for the node that writes it, and for each of the others."""
    count = options.count(4_000, 200)
    before = [node.cpu() for node in nodes]
    done = callers.call_count(
        nodes[0].port, workload.puts(nodes[0].port, names()), CALLERS, callers.Http1Connection, count=count
    )
    _until_agreed(nodes)
    spent = [(node.cpu() - was) / done.requests for node, was in zip(nodes, before, strict=True)]
    writer, follower = spent[0], sum(spent[1:]) / len(spent[1:])
    values = (("writer", writer), ("follower", follower))
    return ResultRow(
        "a registration: CPU of the node that writes it, and of each other node",
        durations((writer, follower)),
        values=values,
    )


def _until_agreed(nodes: Sequence[BenchmarkNode]) -> None:
    deadline = time.monotonic() + AGREEMENT_TIMEOUT
    while len({json.loads(node.get("/api/v1/status"))["revision"] for node in nodes}) > 1:
        if time.monotonic() > deadline:
            raise BenchmarkFailed("the nodes don't reach one revision")
        time.sleep(0.05)


def _renewed(options: RunOptions, nodes: Sequence[BenchmarkNode]) -> ResultRow:
    """Measures single renewals: each program renews its own lease at any node, so two of three are forwarded."""
    # A renewal fails if its keeper does not answer in time. A quick run must not, however busy the machine is.
    count, services, renewers = options.count(3_000, 300), 300, options.count(RENEWERS, 24)
    for part in _spread_over(nodes, workload.puts(nodes[0].port, workload.spread(count, services)), count, renewers):
        if part.failed:
            raise WrongAnswers(f"{part.failed} registrations failed")
    leases = list(workload.spread(count, services))
    renewals = cycle(workload.renewal(nodes[0].port, service, id) for service, id in leases)
    before = sum(node.cpu() for node in nodes)
    loads = _spread_over(nodes, renewals, options.count(30_000, 600), renewers)
    spent = sum(node.cpu() for node in nodes) - before
    if failed := sum(load.failed for load in loads):
        raise WrongAnswers(f"{failed} renewals failed")
    cpu = spent / sum(load.requests for load in loads)
    label = f"single renewals of {renewers} programs through {NODES} nodes: CPU of all nodes per renewal"
    slowest = max(load.p99 for load in loads)
    return ResultRow(
        f"{label}; p99",
        durations((cpu, slowest)),
        aim=f"≤ {duration(MAX_RENEWAL_CPU)}",
        is_met=cpu <= MAX_RENEWAL_CPU,
        values=(("cpu", cpu), ("p99", slowest)),
    )


def _spread_over(
    nodes: Sequence[BenchmarkNode], requests: Iterator[bytes], count: int, connections: int
) -> list[LoadRunResult]:
    """Sends `count` of the requests to all nodes at once, from this many connections."""
    share = count // len(nodes)
    parts = [list(islice(requests, share)) for _ in nodes]
    with ThreadPoolExecutor(len(nodes)) as threads:
        return list(
            threads.map(
                lambda pair: callers.call_count(
                    pair[0].port, iter(pair[1]), connections // NODES, callers.Http1Connection, count=share
                ),
                zip(nodes, parts, strict=True),
            )
        )


def _joined(parts: Sequence[LoadRunResult]) -> LoadRunResult:
    """Returns the sum of several loads, with the worst of their delays."""
    return LoadRunResult(
        requests=sum(part.requests for part in parts),
        failed=sum(part.failed for part in parts),
        took=max(part.took for part in parts),
        p50=max(part.p50 for part in parts),
        p99=max(part.p99 for part in parts),
        answer_bytes=parts[0].answer_bytes,
    )


async def _failed_over(options: RunOptions, nodes: Sequence[BenchmarkNode]) -> list[ResultRow]:
    """Measures the times from kill -9 of a node until others keep its services, and until its watchers are back."""
    logging.getLogger("adsum").setLevel(logging.ERROR)  # The node is killed on purpose.
    rng = Random(1)
    urls = [f"http://127.0.0.1:{node.port}" for node in nodes]
    clients: list[Client] = []
    while len(clients) < options.count(FOLLOWERS, 10):
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
    label = f"a node is killed: until its {len(clients)} watchers watch another node: p50 / p99 / last"
    return [
        ResultRow("a node is killed: until other nodes keep its services", duration(took), values=(("took", took),)),
        ResultRow(label, durations(spread), values=values),
    ]


def _adopted(nodes: Sequence[BenchmarkNode]) -> float:
    """Kills the first node. Returns the time at which the others keep its services."""
    nodes[0].kill()
    _until_shared(nodes[1:])
    return time.monotonic()


async def _resumed(resolver: Resolver, began: float) -> float:
    """Returns the seconds until the watch was lost and replaced."""
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
            raise BenchmarkFailed("the nodes don't share the services")
        time.sleep(0.01)


def _shares(node: BenchmarkNode, count: int) -> bool:
    status: dict[str, Any] = json.loads(node.get("/api/v1/status"))
    shares = [status.get("shards", 0), *(peer["shards"] for peer in status.get("peers", []))]
    return len(shares) == count and sum(shares) == SHARDS
