"""Traffic reports: the requests that gateways answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any

import pytest

from adsum.dialects.xds.subscribers import GatewaySubscribers
from adsum.dialects.xds.telemetry import traffic
from adsum.dialects.xds.telemetry.gateway_metrics import MAX_LATENCY_BUCKETS
from adsum.dialects.xds.telemetry.latency_window import LATENCY_WINDOW, LatencyWindow, quantile
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from adsum.dialects.xds.telemetry.traffic import TrafficReports, TrafficSummary
from tests.dialects.xds.fakes import CDS, metrics_message, resource
from tests.support.fakes import FakeClock
from tests.support.tokens import make_token


class MetricsCall:
    """A call of a gateway that sends given messages until it is closed."""

    peer = "192.0.2.1:1"
    certificate = b""
    metadata: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.refused = ""

    async def read(self) -> bytes | None:
        return await self._messages.get()

    async def write(self, message: bytes) -> None:
        raise AssertionError

    def refuse(self, code: str, message: str) -> None:
        self.refused = f"{code}: {message}"

    def cut(self, reason: str) -> None:
        raise AssertionError

    def send(self, message: bytes | None) -> None:
        self._messages.put_nowait(message)


class ConnectedGateways:
    """The subscribers' groups of the gateways of one caller, by node id."""

    caller = "gateways"

    def __init__(self, **clusters: tuple[str, ...]) -> None:
        self.by_node = {node: GatewaySubscribers() for node in clusters}
        for node, names in clusters.items():
            self.publish(node, *names)

    def publish(self, node: str, *names: str) -> None:
        self.by_node[node].publish({CDS: {name: resource(CDS, name, 1) for name in names}}, 1, 1)


class TrafficWorld:
    """The traffic reports of one node, and the gateways that it configures."""

    def __init__(self, **clusters: tuple[str, ...]) -> None:
        self.gateways = ConnectedGateways(**(clusters or {"gw": ("orders", "orders?tag=canary", "users")}))
        self.clock = FakeClock()
        self.traffic = TrafficReports(self.clock, self._subscribers, RefusalLog(self.clock))
        self._tasks: list[asyncio.Task[None]] = []

    def _subscribers(self, node: str, caller: str) -> GatewaySubscribers | None:
        return self.gateways.by_node.get(node) if caller == self.gateways.caller else None

    def stream(self, caller: str = ConnectedGateways.caller) -> MetricsCall:
        call = MetricsCall()
        self._tasks.append(asyncio.create_task(self.traffic.serve(call, make_token(caller, "read:*")[0].principal())))
        return call

    async def receive(self, call: MetricsCall, *messages: bytes | None) -> None:
        for message in messages:
            call.send(message)
        for _ in range(10 * len(messages)):
            await asyncio.sleep(0)


def _cluster(cluster: str, **metrics: Any) -> dict[str, Any]:
    return {f"cluster.{cluster}.upstream_rq_{name.strip('_')}": value for name, value in metrics.items()}


async def test_counts_are_those_of_the_last_report_over_all_clusters_of_a_service() -> None:
    world = TrafficWorld()
    call = world.stream()
    await world.receive(call, metrics_message("gw", **_cluster("orders", _2xx=5, _5xx=1)))
    await world.receive(
        call, metrics_message("", **_cluster("orders", _2xx=7, _5xx=2), **_cluster("orders?tag=canary", _4xx=1))
    )
    await world.receive(
        call, metrics_message("", **{"http.gateway.downstream_rq_5xx": 9, "http.gateway.downstream_rq_active": 4})
    )
    assert world.traffic.by_service() == {"orders": TrafficSummary(10, 2)}
    assert world.traffic.gateway_summary("gw") == TrafficSummary(9, 9)
    assert world.traffic.requests_in_progress("gw") == 4
    assert world.traffic.counts() == [("gw", "", 9, 9), ("gw", "orders", 10, 2)]


async def test_the_expiry_of_a_gateways_certificate_is_kept() -> None:
    world = TrafficWorld()
    call = world.stream()
    name = "listener.127.0.0.1_8443.ssl.certificate.gateway.expiration_unix_time_seconds"
    other = "cluster.orders.ssl.certificate.gateway.expiration_unix_time_seconds"
    assert world.traffic.certificate_expires("gw") == 0
    await world.receive(call, metrics_message("gw", **{name: 2_000_000_000.0, other: 1.0}))
    assert world.traffic.certificate_expires("gw") == 2_000_000_000
    await world.receive(call, None)
    assert world.traffic.certificate_expires("gw") == 0


async def test_clusters_for_http_2_count_for_their_service() -> None:
    world = TrafficWorld(gw=("calls?h2", "calls?tag=canary&h2"))
    call = world.stream()
    await world.receive(
        call, metrics_message("gw", **_cluster("calls?h2", _2xx=5), **_cluster("calls?tag=canary&h2", _2xx=1))
    )
    assert world.traffic.by_service() == {"calls": TrafficSummary(6)}


async def test_gateways_are_added_up_and_one_that_left_is_dropped() -> None:
    world = TrafficWorld(a=("orders",), b=("orders",))
    one, other = world.stream(), world.stream()
    await world.receive(one, metrics_message("a", **_cluster("orders", _2xx=5)))
    await world.receive(other, metrics_message("b", **_cluster("orders", _2xx=7)))
    assert world.traffic.by_service() == {"orders": TrafficSummary(12)}
    await world.receive(one, None)
    assert world.traffic.by_service() == {"orders": TrafficSummary(7)}
    assert world.traffic.gateway_summary("a") == TrafficSummary()


async def test_an_envoy_that_replaces_another_one_replaces_its_report() -> None:
    world = TrafficWorld()
    old, new = world.stream(), world.stream()
    await world.receive(old, metrics_message("gw", **_cluster("orders", _2xx=100)))
    await world.receive(new, metrics_message("gw", **_cluster("orders", _2xx=1)))
    await world.receive(old, metrics_message("gw", **_cluster("orders", _2xx=101)))
    assert world.traffic.by_service() == {"orders": TrafficSummary(1)}
    await world.receive(old, None)
    assert world.traffic.by_service() == {"orders": TrafficSummary(1)}
    assert not old.refused


async def test_a_gateway_that_moves_to_another_node_is_refused() -> None:
    world = TrafficWorld()
    call = world.stream()
    await world.receive(call, metrics_message("gw", **_cluster("orders", _2xx=5)))
    del world.gateways.by_node["gw"]
    await world.receive(call, metrics_message("", **_cluster("orders", _2xx=6)))
    assert call.refused.startswith("UNAVAILABLE")
    assert world.traffic.by_service() == {}


async def test_clusters_that_are_not_published_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MAX_REPORTED_CLUSTERS", 1)
    world = TrafficWorld()
    call = world.stream()
    await world.receive(call, metrics_message("gw", **_cluster("adsum_registry", _2xx=1), **_cluster("orders", _2xx=5)))
    await world.receive(call, metrics_message("", **_cluster("users", _2xx=3), **{"http.gateway.downstream_rq_2xx": 8}))
    assert world.traffic.by_service() == {"orders": TrafficSummary(5)}, "one cluster is the limit"
    assert world.traffic.gateway_summary("gw") == TrafficSummary(8), "the total is always kept"
    world.gateways.publish("gw", "users")
    assert world.traffic.by_service() == {}
    await world.receive(call, metrics_message("", **_cluster("users", _2xx=3)))
    assert world.traffic.by_service() == {"users": TrafficSummary(3)}


async def test_latencies_are_recent_ones() -> None:
    world = TrafficWorld()
    call = world.stream()
    await world.receive(call, metrics_message("gw", **_cluster("orders", time={1.0: 50, 10.0: 49, inf: 1})))
    summary = world.traffic.by_service()["orders"]
    assert (summary.p50, summary.p99) == (0.001, 0.010)
    await world.receive(call, metrics_message("", **_cluster("orders?tag=canary", time={1.0: 0, 10.0: 100})))
    assert 0.001 < world.traffic.by_service()["orders"].p50 < 0.010
    await world.clock.advance(2 * LATENCY_WINDOW)
    assert world.traffic.by_service()["orders"] == TrafficSummary()


@pytest.mark.parametrize(
    "times",
    [
        {10.0: 1, 1.0: 1},
        {inf: 1},
        {-1.0: 1},
        {float(n): 1 for n in range(1, MAX_LATENCY_BUCKETS + 2)},
    ],
    ids=["falling", "none", "below 0", "many"],
)
async def test_an_invalid_histogram_ends_the_stream(times: dict[float, int]) -> None:
    world = TrafficWorld()
    call = world.stream()
    await world.receive(call, metrics_message("gw", **_cluster("orders", time=times)))
    assert call.refused.startswith("INVALID_ARGUMENT: a histogram must have")


def test_a_latency_is_dropped_after_one_to_two_windows() -> None:
    latencies = LatencyWindow((1.0, 2.0), 0.0)
    latencies.add((1, 0, 0), 0.9 * LATENCY_WINDOW)
    latencies.add((0, 1, 0), 1.1 * LATENCY_WINDOW)
    assert latencies.counts(2.0 * LATENCY_WINDOW) == (1, 1, 0)
    assert latencies.counts(2.2 * LATENCY_WINDOW) == (0, 1, 0)
    assert latencies.counts(9.9 * LATENCY_WINDOW) == (0, 0, 0)


@pytest.mark.parametrize(
    ("rank", "counts", "latency"),
    [
        (0.5, (0, 0, 0), 0.0),
        (0.5, (4, 0, 0), 5.0),
        (0.5, (1, 2, 1), 15.0),
        (0.99, (0, 0, 3), 20.0),
        (1.0, (0, 3, 0), 20.0),
    ],
)
def test_a_quantile_lies_between_the_bounds_of_its_bucket(rank: float, counts: tuple[int, ...], latency: float) -> None:
    assert quantile(rank, (10.0, 20.0), counts) == latency


async def test_only_the_caller_that_is_configured_under_a_node_id_reports_for_it() -> None:
    world = TrafficWorld()
    call = world.stream()
    await world.receive(call, metrics_message("gw", **_cluster("orders", _2xx=5)))
    other = world.stream("another")
    await world.receive(other, metrics_message("gw", **_cluster("orders", _2xx=9_999)))
    assert other.refused.startswith("UNAVAILABLE: ")
    assert world.traffic.by_service() == {"orders": TrafficSummary(5, 0)}
    await world.receive(call, metrics_message("", **_cluster("orders", _2xx=6)))
    assert world.traffic.by_service() == {"orders": TrafficSummary(6, 0)}, "the refused call has replaced nothing"
