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
from benchmarks.fanout import Told, ear, registrations
from benchmarks.harness import callers, etcd_messages, http2, load, workload
from benchmarks.harness.load import CALLERS, Load, Measured, WrongAnswers, quantile
from benchmarks.harness.processes import Trouble
from benchmarks.harness.run_options import Setting
from benchmarks.harness.servers import NO_ETCD, Etcd, Node, etcd_is_there
from benchmarks.harness.table import Result, Row, length, lengths, rate, say
from benchmarks.harness.watcher_pool import Crowd
from benchmarks.register import names, puts

NODES: Final = 3
WATCHERS: Final = 1_000
RENEWERS: Final = 600
FOLLOWERS: Final = 100
SHARDS: Final = 256
PATIENCE: Final = 60.0
"""Seconds within which nodes must have shared what is to be kept."""


def run(setting: Setting) -> list[Result]:
    if not etcd_is_there():
        raise Trouble(NO_ETCD)
    with ExitStack() as stack:
        peer = stack.enter_context(Etcd(setting.folder))
        store = f"etcd://127.0.0.1:{peer.port}"
        nodes = [stack.enter_context(Node(setting.folder, store)) for _ in range(NODES)]
        _until_shared(nodes)
        results: list[Result] = [_told(setting, nodes), *_registered(setting, nodes, peer)]
        results += [_followed(setting, nodes), _renewed(setting, nodes)]
        return [*results, *asyncio.run(_failed_over(setting, nodes))]


def _told(setting: Setting, nodes: Sequence[Node]) -> Row:
    count = setting.so_many(WATCHERS, 50)
    change = registrations(nodes[0])
    change(range(100))
    told = Told(count, 0.0)
    with Crowd(ear(nodes[-1]), nodes[-1].port) as crowd:
        crowd.open(count)
        for turn in range(setting.so_many(20, 2)):
            told.add(crowd.hear([100 + turn], change))
    spread = told.spread()
    values = tuple(zip(("p50", "p99", "last"), spread, strict=True))
    return Row(f"one change to {count:,} watchers of another node: p50 / p99 / last", lengths(spread), values=values)


def _registered(setting: Setting, nodes: Sequence[Node], peer: Etcd) -> list[Row]:
    """As many connections in both rounds: spread over the nodes, or all at etcd itself."""
    seconds = setting.so_long(4.0, 0.5)
    every = names()
    requests = [workload.puts(node.port, every) for node in nodes]
    raw, kind = puts(), http2.Grpc.of(etcd_messages.PUT)
    ours: list[Load] = []
    theirs: list[Measured] = []
    for turn in range(setting.so_many(5, 1)):
        say(f"  round {turn + 1}")
        with ThreadPoolExecutor(NODES) as threads:
            ours.append(
                _joined(
                    list(
                        threads.map(
                            lambda pair: callers.call(
                                pair[0].port, pair[1], CALLERS // NODES, callers.Http1, seconds=seconds
                            ),
                            zip(nodes, requests, strict=True),
                        )
                    )
                )
            )
        theirs.append(
            load.measured(peer, lambda: callers.call(peer.port, raw, CALLERS // NODES * NODES, kind, seconds=seconds))
        )
    mine = [Measured(each, 0.0) for each in ours]
    speed, slowest = load.typical(mine, load.speed), load.typical(mine, load.p99)
    refused = sum(each.failed for each in ours)
    what = f"registrations through {NODES} nodes, {CALLERS // NODES * NODES} callers"
    words = f"{rate(speed)}{f', {refused} refused' if refused else ''}"
    peers = f"etcd puts {rate(load.typical(theirs, load.speed))}"
    return [
        Row(f"{what}: rate", words, peers, load.ratio(mine, theirs, load.speed), values=(("rate", speed),)),
        Row(f"{what}: p99", length(slowest), f"etcd {length(load.typical(theirs, load.p99))}"),
    ]


def _followed(setting: Setting, nodes: Sequence[Node]) -> Row:
    """What a change costs the node that writes it, and what each of the others."""
    count = setting.so_many(4_000, 200)
    before = [node.cpu() for node in nodes]
    done = callers.call_all(nodes[0].port, workload.puts(nodes[0].port, names()), CALLERS, callers.Http1, count=count)
    _until_agreed(nodes)
    spent = [(node.cpu() - was) / done.requests for node, was in zip(nodes, before, strict=True)]
    writer, follower = spent[0], sum(spent[1:]) / len(spent[1:])
    values = (("writer", writer), ("follower", follower))
    return Row(
        "a registration: CPU of the node that writes it, and of each other", lengths((writer, follower)), values=values
    )


def _until_agreed(nodes: Sequence[Node]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len({json.loads(node.get("/api/v1/status"))["revision"] for node in nodes}) > 1:
        if time.monotonic() > deadline:
            raise Trouble("the nodes don't come to one revision")
        time.sleep(0.05)


def _renewed(setting: Setting, nodes: Sequence[Node]) -> Row:
    """Every program renews for itself, at any node; two of three renewals have to be passed on."""
    count, services = setting.so_many(3_000, 300), 300
    for some in _spread_over(nodes, workload.puts(nodes[0].port, workload.spread(count, services)), count):
        if some.failed:
            raise WrongAnswers(f"{some.failed} registrations failed")
    names = list(workload.spread(count, services))
    texts = cycle(workload.renewal(nodes[0].port, service, id) for service, id in names)
    before = sum(node.cpu() for node in nodes)
    loads = _spread_over(nodes, texts, setting.so_many(30_000, 600))
    spent = sum(node.cpu() for node in nodes) - before
    if failed := sum(each.failed for each in loads):
        raise WrongAnswers(f"{failed} renewals failed")
    each = spent / sum(load.requests for load in loads)
    what = f"renewals one by one through {NODES} nodes, {RENEWERS} programs: CPU of all nodes each"
    return Row(what, length(each), values=(("cpu", each),))


def _spread_over(nodes: Sequence[Node], requests: Iterator[bytes], count: int) -> list[Load]:
    """So many of the requests, at all nodes at once, from `RENEWERS` connections."""
    share = count // len(nodes)
    parts = [list(islice(requests, share)) for _ in nodes]
    with ThreadPoolExecutor(len(nodes)) as threads:
        return list(
            threads.map(
                lambda pair: callers.call_all(
                    pair[0].port, iter(pair[1]), RENEWERS // NODES, callers.Http1, count=share
                ),
                zip(nodes, parts, strict=True),
            )
        )


def _joined(parts: Sequence[Load]) -> Load:
    """What several loads were together; of delays the worst."""
    return Load(
        requests=sum(part.requests for part in parts),
        failed=sum(part.failed for part in parts),
        took=max(part.took for part in parts),
        p50=max(part.p50 for part in parts),
        p99=max(part.p99 for part in parts),
        answer=parts[0].answer,
    )


async def _failed_over(setting: Setting, nodes: Sequence[Node]) -> list[Row]:
    """From kill -9 of a node until the others keep what it kept, and until those who watched it hear another one."""
    logging.getLogger("adsum").setLevel(logging.ERROR)  # That the node is gone is no news here.
    rng = Random(1)
    urls = [f"http://127.0.0.1:{node.port}" for node in nodes]
    clients: list[Client] = []
    while len(clients) < setting.so_many(FOLLOWERS, 10):
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
        Row("a node is killed: until others keep what it kept", length(took), values=(("took", took),)),
        Row(what, lengths(spread), values=values),
    ]


def _adopted(nodes: Sequence[Node]) -> float:
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


def _until_shared(nodes: Sequence[Node]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not all(_shares(node, len(nodes)) for node in nodes):
        if time.monotonic() > deadline:
            raise Trouble("the nodes don't share what is to be kept")
        time.sleep(0.01)


def _shares(node: Node, count: int) -> bool:
    status: dict[str, Any] = json.loads(node.get("/api/v1/status"))
    shares = [status.get("share", 0), *(peer["share"] for peer in status.get("peers", []))]
    return len(shares) == count and sum(shares) == SHARDS
