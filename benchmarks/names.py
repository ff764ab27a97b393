"""The time from the registration of a new service until a gateway routes to it.

It is measured in an empty registry, and beside 1,000 routes, 1,000 services and 10,000 services that were deregistered.
Meanwhile another client sends requests to the registry, which shows for how long its event loop is blocked.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Final

from benchmarks.harness.answer_timer import AnswerTimer
from benchmarks.harness.load import WrongAnswers
from benchmarks.harness.proxies import GatewayProxy
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode
from benchmarks.harness.table import Result, ResultRow, duration, durations, log_progress

REQUEST_TIMEOUT: Final = 60.0
MAX_CONCURRENT_REGISTRATIONS: Final = 16
"""Registrations at a time."""
PROBE_INTERVAL: Final = 0.001
"""Seconds between two requests of the client that measures how long the loop is blocked."""
MIN_RATIO: Final = 0.5
"""The aim: the time in an empty registry by the time beside the others."""
MAX_BLOCKED: Final = 0.02
"""Seconds for which the loop may be blocked."""


def run(options: RunOptions) -> list[Result]:
    services, routes, deregistered = options.count(1_000, 40), options.count(1_000, 10), options.count(10_000, 60)
    turns = options.count(50, 5)
    with BenchmarkNode(options.folder, "memory:") as node:
        with GatewayProxy(options.folder, node) as gateway:
            alone, _ = _new_names(node, gateway, "alone", turns)
        log_progress(f"  {services:,} services, {routes:,} routes, {deregistered:,} deregistered services")
        _register(node, [f"there-{n}" for n in range(services)])
        node.put("/api/v1/intent", {"routes": [_route(n, services) for n in range(routes)]})
        _register(node, [f"gone-{n}" for n in range(deregistered)], deregister=True)
        with GatewayProxy(options.folder, node) as gateway:
            gateway.wait_until(lambda: _follows(node))
            beside, blocked = _new_names(node, gateway, "beside", turns)
    others = f"{routes:,} routes, {services:,} services and {deregistered:,} deregistered ones"
    ratio = median(alone) / median(beside)
    return [
        ResultRow(
            f"a new service until a gateway routes to it, beside {others}: p50 / max",
            durations([median(beside), max(beside)]),
            f"alone {durations([median(alone), max(alone)])}",
            ratio,
            f"≥ {MIN_RATIO}x",
            ratio >= MIN_RATIO,
            (("p50", median(beside)), ("alone", median(alone))),
        ),
        ResultRow(
            "meanwhile, the slowest answer of the registry",
            duration(blocked),
            aim=f"< {duration(MAX_BLOCKED)}",
            is_met=blocked < MAX_BLOCKED,
            values=(("blocked", blocked),),
        ),
    ]


def _route(number: int, services: int) -> dict[str, object]:
    hosts = {"hosts": [f"h{number % 10}.example"]} if number % 2 else {}
    target = [{"service": f"there-{number % services}"}]
    return {"name": f"r{number}", "path": {"prefix": f"/r{number}"}, "to": target, **hosts}


def _new_names(node: BenchmarkNode, gateway: GatewayProxy, kind: str, turns: int) -> tuple[list[float], float]:
    """Returns the seconds from each registration until the gateway routes to it, and the slowest answer meanwhile."""
    times = []
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT)
    with AnswerTimer(node.port, PROBE_INTERVAL) as timer:
        for turn in range(turns):
            name = f"{kind}-{turn}"
            began = time.monotonic()
            _register(node, [name])
            # Its only instance does not exist, so the gateway knows it when the answer is not 404.
            while _status(connection, f"/{name}/") == http.client.NOT_FOUND:
                if time.monotonic() - began > REQUEST_TIMEOUT:
                    raise WrongAnswers(f"the gateway did not route to {name}")
            times.append(time.monotonic() - began)
            time.sleep(0.05)  # Changes that are close together are coalesced; here each is measured alone.
    connection.close()
    return times, timer.longest


def _follows(node: BenchmarkNode) -> bool:
    """Returns whether the gateway has acknowledged the latest revision."""
    status = json.loads(node.get("/api/v1/status"))
    return any(gateway["revision"] >= status["revision"] for gateway in status.get("gateways", ()))


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _register(node: BenchmarkNode, names: Iterable[str], *, deregister: bool = False) -> None:
    own = threading.local()

    def register(name: str) -> None:
        connection: http.client.HTTPConnection | None = getattr(own, "connection", None)
        if connection is None:
            connection = own.connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=REQUEST_TIMEOUT)
        for method in ("PUT", "DELETE") if deregister else ("PUT",):
            body = json.dumps({"address": "127.0.0.1", "port": 1, "ttl": None}) if method == "PUT" else None
            headers = {"content-type": "application/json"} if body else {}
            connection.request(method, f"/api/v1/services/{name}/instances/i", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status >= http.client.BAD_REQUEST:
                raise WrongAnswers(f"{method} of {name} was answered with {answer.status}")

    with ThreadPoolExecutor(MAX_CONCURRENT_REGISTRATIONS) as callers:
        list(callers.map(register, names))
