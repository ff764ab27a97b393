"""Look-up: reading a service of 100 instances, 64 callers at a time.

Beside us: uvicorn answering the same bytes (what the server under us costs), and etcd's range read of the same 100
values. Rounds are interleaved, and ratios are taken round by round.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import repeat
from typing import Final

from benchmarks.harness import callers, etcd_messages, h2load, http2, load, workload
from benchmarks.harness.load import CALLERS, Load, Measured
from benchmarks.harness.processes import Child
from benchmarks.harness.run_options import Setting
from benchmarks.harness.servers import NO_ETCD, Bare, Etcd, Node, etcd_is_there, sqlite
from benchmarks.harness.table import Result, Row, Skipped, length, rate, say

INSTANCES: Final = 100
MOST_CPU: Final = 40e-6
LEAST_RATIO: Final = 5.0
PREFIX: Final = b"bench/orders/"


def run(setting: Setting) -> list[Result]:
    with Node(setting.folder, sqlite(setting.folder)) as node:
        names = ((workload.SERVICE, f"i-{number:06}") for number in range(INSTANCES))
        callers.call_all(node.port, workload.puts(node.port, names), 8, callers.Http1, count=INSTANCES)
        body = node.get(f"/api/v1/services/{workload.SERVICE}")
        with Bare(setting.folder, body) as bare:
            if not etcd_is_there():
                return [
                    *_rows(len(body), _rounds(setting, node, bare, None, 0)),
                    Skipped("look-up beside etcd", NO_ETCD),
                ]
            with Etcd(setting.folder) as peer:
                size = _fill(peer, body)
                return _rows(len(body), _rounds(setting, node, bare, peer, size))


def _fill(peer: Etcd, body: bytes) -> int:
    """Put the same instances into etcd; the size of a range read's answer."""
    values = [json.dumps(each, separators=(",", ":")).encode() for each in json.loads(body)["instances"]]
    puts = iter([etcd_messages.put(PREFIX + b"%d" % number, value) for number, value in enumerate(values)])
    callers.call_all(peer.port, puts, 8, http2.Grpc.of(etcd_messages.PUT), count=len(values))
    once = callers.call_all(
        peer.port, repeat(etcd_messages.get_prefix(PREFIX)), 1, http2.Grpc.of(etcd_messages.RANGE), count=1
    )
    if once.answer < sum(map(len, values)):
        raise load.WrongAnswers("etcd does not answer what was put")
    return round(once.answer)


def _rounds(
    setting: Setting, node: Node, bare: Bare, peer: Etcd | None, size: int
) -> tuple[list[Measured], list[Measured], list[Measured]]:
    path = f"/api/v1/services/{workload.SERVICE}"
    expected = len(node.get(path))
    if not h2load.there():
        say(f"  {h2load.HINT}")
    ours: list[Measured] = []
    bares: list[Measured] = []
    etcds: list[Measured] = []
    many = setting.so_many(40_000, 2_000)
    for turn in range(setting.so_many(5, 1)):
        say(f"  round {turn + 1}")
        ours.append(_measured(node, lambda: _get(setting, node.port, path, many), expected))
        bares.append(_measured(bare, lambda: _get(setting, bare.port, "/", many), expected))
        if peer is not None:
            etcds.append(_measured(peer, lambda: _range(setting, peer.port, many // 4), size))
    return ours, bares, etcds


def _measured(server: Child, run: Callable[[], Load], expected: int) -> Measured:
    found = load.measured(server, run)
    # etcd's answers tell the number of the raft term in as many bytes as it takes.
    if abs(found.load.answer - expected) > 8:
        raise load.WrongAnswers(f"{server.name} answers {found.load.answer:.0f} bytes instead of {expected}")
    return found


def _get(setting: Setting, port: int, path: str, many: int) -> Load:
    if h2load.there():
        return h2load.get(f"http://127.0.0.1:{port}{path}", CALLERS, many, setting.folder)
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
    return callers.call_all(port, repeat(request), CALLERS, callers.Http1, count=many)


def _range(setting: Setting, port: int, many: int) -> Load:
    request = etcd_messages.get_prefix(PREFIX)
    if h2load.there():
        url = f"http://127.0.0.1:{port}{etcd_messages.RANGE}"
        return h2load.grpc(url, http2.message(request), CALLERS, many, setting.folder)
    return callers.call_all(port, repeat(request), CALLERS, http2.Grpc.of(etcd_messages.RANGE), count=many)


def _rows(size: int, found: tuple[list[Measured], list[Measured], list[Measured]]) -> list[Result]:
    ours, bares, etcds = found
    cpu, speed = load.typical(ours, load.cpu), load.typical(ours, load.speed)
    rows: list[Result] = [
        Row(
            f"look-up of {INSTANCES} instances ({size:,} B): CPU a request",
            length(cpu),
            f"bare uvicorn {length(load.typical(bares, load.cpu))}",
            1 / load.ratio(ours, bares, load.cpu),
            f"≤ {length(MOST_CPU)}",
            cpu <= MOST_CPU,
            (("cpu", cpu), ("bare_cpu", load.typical(bares, load.cpu))),
        ),
        Row(
            f"look-up at {CALLERS} callers: rate",
            rate(speed),
            f"bare uvicorn {rate(load.typical(bares, load.speed))}",
            load.ratio(ours, bares, load.speed),
            values=(("rate", speed), ("bare_rate", load.typical(bares, load.speed))),
        ),
    ]
    if not etcds:
        return rows
    faster = load.ratio(ours, etcds, load.speed)
    rows += [
        Row(
            "look-up beside etcd's range read: CPU a request",
            length(cpu),
            f"etcd {length(load.typical(etcds, load.cpu))}",
            1 / load.ratio(ours, etcds, load.cpu),
            values=(("etcd_cpu", load.typical(etcds, load.cpu)),),
        ),
        Row(
            "look-up beside etcd's range read: rate",
            rate(speed),
            f"etcd {rate(load.typical(etcds, load.speed))}",
            faster,
            f"≥ {LEAST_RATIO:.0f}x",
            faster >= LEAST_RATIO,
            (("etcd_rate", load.typical(etcds, load.speed)), ("ratio", faster)),
        ),
        _latency("look-up: p50", ours, etcds, load.p50),
        _latency("look-up: p99", ours, etcds, load.p99),
    ]
    return rows


def _latency(what: str, ours: list[Measured], etcds: list[Measured], of: Callable[[Measured], float]) -> Row:
    mine, theirs = load.typical(ours, of), load.typical(etcds, of)
    better = 1 / load.ratio(ours, etcds, of)
    return Row(what, length(mine), f"etcd {length(theirs)}", better, values=(("ours", mine), ("etcd", theirs)))
