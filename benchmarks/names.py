"""A new name until a gateway answers for it: alone, and beside 1,000 routes, 1,000 services and 10,000 names that came
and went. Meanwhile somebody else asks the registry, which shows for how long its loop was held.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from types import TracebackType
from typing import Final

from benchmarks.harness.load import WrongAnswers
from benchmarks.harness.proxies import GatewayProxy
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode
from benchmarks.harness.table import Result, ResultRow, duration, durations, log_progress

REQUEST_TIMEOUT: Final = 60.0
MAX_CONCURRENT_REGISTRATIONS: Final = 16
"""Callers that register at the same time."""
PROBE_INTERVAL: Final = 0.001
"""Seconds between two questions that show how long the loop is held."""
MIN_RATIO: Final = 0.5
"""How much dearer a name may be: half as fast as alone."""
MAX_BLOCKED: Final = 0.02
"""Seconds for which the loop may be held."""


def run(setting: RunOptions) -> list[Result]:
    services, routes, dead = setting.count(1_000, 40), setting.count(1_000, 10), setting.count(10_000, 60)
    turns = setting.count(50, 5)
    with BenchmarkNode(setting.folder, "memory:") as node:
        with GatewayProxy(setting.folder, node) as gateway:
            alone, _ = _new_names(node, gateway, "alone", turns)
        log_progress(f"  {services:,} services, {routes:,} routes, {dead:,} names that came and went")
        _register(node, [f"there-{n}" for n in range(services)])
        node.put("/api/v1/intent", {"routes": [_route(n, services) for n in range(routes)]})
        _register(node, [f"gone-{n}" for n in range(dead)], leave=True)
        with GatewayProxy(setting.folder, node) as gateway:
            gateway.wait_until(lambda: _follows(node))
            beside, held = _new_names(node, gateway, "beside", turns)
    many = f"{routes:,} routes, {services:,} services and {dead:,} names that came and went"
    dearer = median(beside) / median(alone)
    return [
        ResultRow(
            f"a new name until a gateway answers for it, beside {many}: p50 / max",
            durations([median(beside), max(beside)]),
            f"alone {durations([median(alone), max(alone)])}",
            1 / dearer,
            f"≥ {MIN_RATIO}x",
            1 / dearer >= MIN_RATIO,
            (("p50", median(beside)), ("alone", median(alone))),
        ),
        ResultRow(
            "meanwhile, the longest that the registry answered nobody",
            duration(held),
            aim=f"< {duration(MAX_BLOCKED)}",
            is_met=held < MAX_BLOCKED,
            values=(("held", held),),
        ),
    ]


def _route(number: int, services: int) -> dict[str, object]:
    hosts = {"hosts": [f"h{number % 10}.example"]} if number % 2 else {}
    target = [{"service": f"there-{number % services}"}]
    return {"name": f"r{number}", "path": {"prefix": f"/r{number}"}, "to": target, **hosts}


def _new_names(node: BenchmarkNode, gateway: GatewayProxy, kind: str, turns: int) -> tuple[list[float], float]:
    """Seconds from registering each of so many names until the gateway knows it, and the longest hold meanwhile."""
    took = []
    asking = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT)
    with _Hold(node) as hold:
        for turn in range(turns):
            name = f"{kind}-{turn}"
            began = time.monotonic()
            _register(node, [name])
            # Its only instance lives nowhere: it is known when that is what the gateway says.
            while _status(asking, f"/{name}/") == http.client.NOT_FOUND:
                if time.monotonic() - began > REQUEST_TIMEOUT:
                    raise WrongAnswers(f"{name} was never routed")
            took.append(time.monotonic() - began)
            time.sleep(0.05)  # Changes that come together are told together: here each comes alone.
    asking.close()
    return took, hold.longest


def _follows(node: BenchmarkNode) -> bool:
    """Whether the gateway has taken all that the registry knows."""
    said = json.loads(node.get("/api/v1/status"))
    return any(each["revision"] >= said["revision"] for each in said.get("gateways", ()))


def _status(asking: http.client.HTTPConnection, path: str) -> int:
    asking.request("GET", path)
    answer = asking.getresponse()
    answer.read()
    return answer.status


def _register(node: BenchmarkNode, names: Iterable[str], *, leave: bool = False) -> None:
    own = threading.local()

    def register(name: str) -> None:
        asking: http.client.HTTPConnection | None = getattr(own, "asking", None)
        if asking is None:
            asking = own.asking = http.client.HTTPConnection("127.0.0.1", node.port, timeout=REQUEST_TIMEOUT)
        for method in ("PUT", "DELETE") if leave else ("PUT",):
            body = json.dumps({"address": "127.0.0.1", "port": 1, "ttl": None}) if method == "PUT" else None
            headers = {"content-type": "application/json"} if body else {}
            asking.request(method, f"/api/v1/services/{name}/instances/i", body, headers)
            answer = asking.getresponse()
            answer.read()
            if answer.status >= http.client.BAD_REQUEST:
                raise WrongAnswers(f"{method} of {name} was answered with {answer.status}")

    with ThreadPoolExecutor(MAX_CONCURRENT_REGISTRATIONS) as callers:
        list(callers.map(register, names))


class _Hold:
    """Asks the node all the time whether it lives; the longest that it took to answer."""

    def __init__(self, node: BenchmarkNode) -> None:
        self._asking = http.client.HTTPConnection("127.0.0.1", node.port, timeout=REQUEST_TIMEOUT)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest = 0.0

    def _ask(self) -> None:
        while not self._ended.wait(PROBE_INTERVAL):
            began = time.monotonic()
            _status(self._asking, "/healthz")
            self.longest = max(self.longest, time.monotonic() - began)

    def __enter__(self) -> _Hold:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._asking.close()
