"""Peers that break the rules, or take more than their share, harm nobody else."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse

from adsum.config.serve import ServeConfig
from adsum.dialects.xds.bounds import MAX_GRPC_NAMES, MAX_NAME, MAX_NODE
from adsum.gateway.profile import Shape
from adsum.gateway.resources.resources import Kind
from tests.dialects.xds.fakes import CDS, EDS, said
from tests.support.registry_daemon import RunningDaemon

LONG = 30.0
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA, SOTW = f"{ADS}/DeltaAggregatedResources", f"{ADS}/StreamAggregatedResources"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
METRICS = "/envoy.service.metrics.v3.MetricsService/StreamMetrics"
SHAPE = Shape(listen=("127.0.0.1:8080",)).metadata()


class Peer:
    """Says what it is told to, and keeps what it hears."""

    def __init__(self, place: str, method: str = DELTA) -> None:
        self.heard: list[bytes] = []
        self.end: grpc.RpcError | None = None
        self._said: list[bytes] = []
        self._more = threading.Condition()
        self._over = False
        self._channel = grpc.insecure_channel(place, [("grpc.use_local_subchannel_pool", 1)])
        self._call = self._channel.stream_stream(method, None, None)(self._requests())
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def say(self, *messages: bytes) -> Peer:
        with self._more:
            self._said += messages
            self._more.notify()
        return self

    def _requests(self) -> Iterator[bytes]:
        said = 0
        while True:
            with self._more:
                while not self._over and said == len(self._said):
                    self._more.wait(LONG)
                if said == len(self._said):
                    return
                message = self._said[said]
            said += 1
            yield message

    def _listen(self) -> None:
        try:
            for message in self._call:
                self.heard.append(message)
        except grpc.RpcError as error:
            self.end = error

    def status(self) -> tuple[str, str]:
        """How it was ended."""
        self._thread.join(LONG)
        assert self.end is not None
        return self.end.code().name, self.end.details() or ""

    def close(self) -> None:
        with self._more:
            self._over = True
            self._more.notify()
        self._channel.close()
        self._thread.join(LONG)


class Gateway(Peer):
    """One that keeps the rules: it subscribes to one assignment and acknowledges."""

    def __init__(self, place: str, node: str = "good") -> None:
        super().__init__(place)
        self._acked = 0
        self.say(asked(CDS, node=node))
        self.say(asked(EDS, "orders"))

    def ports(self) -> list[int]:
        """Of the last assignment; acknowledges what it heard."""
        for message in self.heard[self._acked :]:
            said = DeltaDiscoveryResponse.FromString(message)
            self.say(DeltaDiscoveryRequest(type_url=said.type_url, response_nonce=said.nonce).SerializeToString())
            self._acked += 1
        last = [each for each in map(DeltaDiscoveryResponse.FromString, self.heard) if each.type_url == EDS.value]
        if not last or not last[-1].resources:
            return []
        assignment = ClusterLoadAssignment.FromString(last[-1].resources[0].resource.value)
        return sorted(
            each.endpoint.address.socket_address.port_value
            for locality in assignment.endpoints
            for each in locality.lb_endpoints
        )


def asked(kind: Any, *names: str, node: str = "", agent: str = "envoy", metadata: Any = SHAPE, **more: Any) -> bytes:
    """One request."""
    request = DeltaDiscoveryRequest(type_url=getattr(kind, "value", kind), resource_names_subscribe=names, **more)
    if node:
        request.node.id = node
        request.node.user_agent_name = agent
        request.node.metadata.update(metadata)
    message: bytes = request.SerializeToString()
    return message


class World:
    """A registry, and a gateway that keeps the rules."""

    def __init__(self) -> None:
        self.daemon = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="127.0.0.1:0", store="memory:", node="test"))
        self.peers: list[Peer] = []
        self.port = 1_000
        self.register()
        self.good = Gateway(self.daemon.xds)
        self.peers.append(self.good)
        self.check()

    def peer(self, method: str = DELTA) -> Peer:
        self.peers.append(Peer(self.daemon.xds, method))
        return self.peers[-1]

    def register(self) -> None:
        self.port += 1
        body = {"port": self.port, "address": "127.0.0.1"}
        httpx.put(f"{self.daemon.url}/api/v1/services/orders/instances/a", json=body).raise_for_status()

    def check(self) -> None:
        """A change reaches the one that keeps the rules, and it is still the same stream."""
        self.register()
        until(lambda: self.good.ports() == [self.port])
        assert self.good.end is None

    def metrics(self) -> str:
        return httpx.get(f"{self.daemon.url}/metrics").text

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.daemon.stop()


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


RUDE = {
    "no protobuf": (DELTA, b"\xff\xff\xff\xff", "this is no discovery request"),
    "no node": (DELTA, asked(CDS), "which node"),
    "long node": (DELTA, asked(CDS, node="x" * (MAX_NODE + 1)), "a node's words"),
    "lines in the node": (DELTA, asked(CDS, node="a\nb"), "a node's words"),
    "no shape": (DELTA, asked(CDS, node="x", metadata={}), "adsum"),
    "strange shape": (DELTA, asked(CDS, node="x", metadata={"adsum": {"listen": ["everywhere"]}}), "listen"),
    "long name": (DELTA, asked(EDS, "x" * (MAX_NAME + 1), node="x"), "a name or version"),
    "long nonce": (DELTA, asked(EDS, node="x", response_nonce="x" * (MAX_NAME + 1)), "a nonce"),
    "long version": (DELTA, asked(EDS, node="x", initial_resource_versions={"a": "x" * 600}), "a name or version"),
    "many names": (
        DELTA,
        asked(EDS, *(f"s{n}" for n in range(MAX_GRPC_NAMES + 1)), node="x", agent="gRPC"),
        "at most 2000 names",
    ),
    "no load report": (LRS, b"\xff\xff\xff\xff", "this is no load report"),
    "load of nobody": (LRS, LoadStatsRequest().SerializeToString(), "which node"),
    "no figures": (METRICS, b"\xff\xff\xff\xff", "these are no figures"),
    "figures of nobody": (METRICS, said(""), "which node"),
    "figures of a long node": (METRICS, said("x" * (MAX_NODE + 1)), "which node"),
    "less than nothing": (METRICS, said("good", **{"cluster.orders.upstream_rq_2xx": -1.0}), "counts are from 0"),
    "no number": (METRICS, said("good", **{"http.gateway.downstream_rq_5xx": math.nan}), "counts are from 0"),
    "beyond counting": (METRICS, said("good", **{"http.gateway.downstream_rq_5xx": math.inf}), "counts are from 0"),
}


@pytest.mark.parametrize("rude", RUDE)
def test_one_that_breaks_the_rules_is_told_so_and_alone(world: World, rude: str) -> None:
    method, message, words = RUDE[rude]
    code, details = world.peer(method).say(message).status()
    assert code == "INVALID_ARGUMENT"
    assert words in details
    world.check()
    [refused] = httpx.get(f"{world.daemon.url}/api/v1/status").json()["refused"]
    assert (refused["code"], refused["reason"], refused["count"]) == (code, details, 1)
    assert 'adsum_xds_refused_total{code="INVALID_ARGUMENT"} 1.0' in world.metrics()


def test_a_refusal_reaches_peers_that_are_being_sent_something(world: World, caplog: pytest.LogCaptureFixture) -> None:
    greedy = asked(Kind.LISTENER, *(f"s{n}" for n in range(1_500)), node="x", agent="grpc", metadata={})
    peers = [world.peer().say(greedy, b"\xff\xff\xff") for _ in range(8)]
    assert [peer.status() for peer in peers] == [("INVALID_ARGUMENT", "this is no discovery request")] * 8
    assert not any(record.exc_info for record in caplog.records)
    world.check()


def test_unknown_kinds_and_wrong_nonces_are_passed_over(world: World) -> None:
    peer = world.peer().say(
        asked("type.googleapis.com/no.such.Kind", "x", node="odd"),
        asked(EDS, "orders", response_nonce="never-sent"),
        asked(EDS, response_nonce="never-sent", error_detail={"code": 3, "message": "lies"}),
        asked(CDS, node="another-node-than-before"),
    )
    until(lambda: len(peer.heard) >= 2)
    world.check()
    status = httpx.get(f"{world.daemon.url}/api/v1/status").json()
    assert sorted(each["node"] for each in status["gateways"]) == ["good", "odd"]
    assert not any("rejects" in each for each in status["gateways"])


def test_a_flood_of_requests_holds_up_nobody(world: World) -> None:
    floods = [world.peer().say(asked(CDS, node=f"flood{n}")) for n in range(3)]
    for flood in floods:
        flood.say(*(asked(EDS, f"s{n % 700}", resource_names_unsubscribe=[f"s{n % 600}"]) for n in range(6_000)))
    for _ in range(5):
        world.check()
    assert all(flood.end is None for flood in floods)


def test_streams_that_come_and_go_leave_nothing(world: World) -> None:
    for n in range(30):
        peer = world.peer()
        peer.say(asked(CDS, node=f"brief{n}"), asked(EDS, "orders"))
        until(lambda: peer.heard)  # noqa: B023
        peer.close()
    until(lambda: len(httpx.get(f"{world.daemon.url}/api/v1/status").json()["gateways"]) == 1)
    world.check()


def test_load_reports_are_told_as_tries_by_instance(world: World) -> None:
    peer = world.peer(LRS)
    report = LoadStatsRequest()
    report.node.id = "good"
    for name in ("orders", "no-service-of-ours"):
        part = report.cluster_stats.add(cluster_name=name).upstream_locality_stats.add()
        one = part.upstream_endpoint_stats.add(total_issued_requests=7, total_error_requests=1)
        one.address.socket_address.address, one.address.socket_address.port_value = "127.0.0.1", world.port
    peer.say(report.SerializeToString(), report.SerializeToString())
    until(lambda: 'adsum_instance_tries_total{instance="a",service="orders"} 14.0' in world.metrics())
    assert 'adsum_instance_tries_failed_total{instance="a",service="orders"} 2.0' in world.metrics()
    assert LoadStatsResponse.FromString(peer.heard[0]).send_all_clusters
    assert "no-service-of-ours" not in world.metrics()


def test_figures_of_a_gateway_that_is_told_elsewhere_are_turned_away(world: World) -> None:
    assert world.peer(METRICS).say(said("stranger")).status()[0] == "UNAVAILABLE"
    peer = world.peer(METRICS).say(said("good", **{"cluster.orders.upstream_rq_5xx": 3}))
    until(lambda: 'adsum_gateway_service_errors_total{gateway="good",service="orders"} 3.0' in world.metrics())
    assert peer.end is None
    peer.close()
    until(lambda: "adsum_gateway_service_errors_total{" not in world.metrics())
