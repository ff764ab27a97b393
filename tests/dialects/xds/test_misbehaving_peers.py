"""Peers that violate the protocol or a limit do not affect others."""

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
from adsum.dialects.xds.streams.request import MAX_NAME_LENGTH, MAX_NODE_LENGTH
from adsum.dialects.xds.subscribers import MAX_GRPC_NAMES
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.resources import ResourceKind
from tests.dialects.xds.fakes import CDS, EDS, metrics_message
from tests.support.registry_daemon import RunningDaemon

WAIT_TIMEOUT = 30.0
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA, SOTW = f"{ADS}/DeltaAggregatedResources", f"{ADS}/StreamAggregatedResources"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
METRICS = "/envoy.service.metrics.v3.MetricsService/StreamMetrics"
PROFILE = GatewayProfile(listen=("127.0.0.1:8080",)).metadata()


class RawGrpcPeer:
    """A peer that sends given messages, and keeps the messages that it receives."""

    def __init__(self, address: str, method: str = DELTA) -> None:
        self.received: list[bytes] = []
        self.end: grpc.RpcError | None = None
        self._messages: list[bytes] = []
        self._condition = threading.Condition()
        self._is_closed = False
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._call = self._channel.stream_stream(method, None, None)(self._requests())
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def send(self, *messages: bytes) -> RawGrpcPeer:
        with self._condition:
            self._messages += messages
            self._condition.notify()
        return self

    def _requests(self) -> Iterator[bytes]:
        sent = 0
        while True:
            with self._condition:
                while not self._is_closed and sent == len(self._messages):
                    self._condition.wait(WAIT_TIMEOUT)
                if sent == len(self._messages):
                    return
                message = self._messages[sent]
            sent += 1
            yield message

    def _listen(self) -> None:
        try:
            for message in self._call:
                self.received.append(message)
        except grpc.RpcError as error:
            self.end = error

    def status(self) -> tuple[str, str]:
        """Waits for the end of the call, and returns its status and details."""
        self._thread.join(WAIT_TIMEOUT)
        assert self.end is not None
        return self.end.code().name, self.end.details() or ""

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        self._channel.close()
        self._thread.join(WAIT_TIMEOUT)


class WellBehavedGateway(RawGrpcPeer):
    """A gateway that follows the protocol: it subscribes to one assignment, and acknowledges."""

    def __init__(self, address: str, node: str = "good") -> None:
        super().__init__(address)
        self._acked = 0
        self.send(request_bytes(CDS, node=node))
        self.send(request_bytes(EDS, "orders"))

    def ports(self) -> list[int]:
        """Acknowledges all responses, and returns the ports in the last assignment."""
        for message in self.received[self._acked :]:
            response = DeltaDiscoveryResponse.FromString(message)
            self.send(
                DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce).SerializeToString()
            )
            self._acked += 1
        last = [
            response
            for response in map(DeltaDiscoveryResponse.FromString, self.received)
            if response.type_url == EDS.value
        ]
        if not last or not last[-1].resources:
            return []
        assignment = ClusterLoadAssignment.FromString(last[-1].resources[0].resource.value)
        return sorted(
            endpoint.endpoint.address.socket_address.port_value
            for locality in assignment.endpoints
            for endpoint in locality.lb_endpoints
        )


def request_bytes(
    kind: Any, *names: str, node: str = "", agent: str = "envoy", metadata: Any = PROFILE, **more: Any
) -> bytes:
    """Encodes a request."""
    request = DeltaDiscoveryRequest(type_url=getattr(kind, "value", kind), resource_names_subscribe=names, **more)
    if node:
        request.node.id = node
        request.node.user_agent_name = agent
        request.node.metadata.update(metadata)
    message: bytes = request.SerializeToString()
    return message


class MisbehavingPeersWorld:
    """A registry, and a gateway that follows the protocol."""

    def __init__(self) -> None:
        self.daemon = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="127.0.0.1:0", store="memory:", node="test"))
        self.peers: list[RawGrpcPeer] = []
        self.port = 1_000
        self.register()
        self.well_behaved = WellBehavedGateway(self.daemon.xds)
        self.peers.append(self.well_behaved)
        self.check()

    def connect(self, method: str = DELTA) -> RawGrpcPeer:
        self.peers.append(RawGrpcPeer(self.daemon.xds, method))
        return self.peers[-1]

    def register(self) -> None:
        self.port += 1
        body = {"port": self.port, "address": "127.0.0.1"}
        httpx.put(f"{self.daemon.url}/api/v1/services/orders/instances/a", json=body).raise_for_status()

    def check(self) -> None:
        """Checks that a change reaches the well-behaved gateway on its first stream."""
        self.register()
        until(lambda: self.well_behaved.ports() == [self.port])
        assert self.well_behaved.end is None

    def metrics(self) -> str:
        return httpx.get(f"{self.daemon.url}/metrics").text

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.daemon.stop()


@pytest.fixture
def world() -> Iterator[MisbehavingPeersWorld]:
    found = MisbehavingPeersWorld()
    yield found
    found.close()


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


MISBEHAVIOURS = {
    "no protobuf": (DELTA, b"\xff\xff\xff\xff", "the message is not a discovery request"),
    "no node": (DELTA, request_bytes(CDS), "must have a node"),
    "long node": (DELTA, request_bytes(CDS, node="x" * (MAX_NODE_LENGTH + 1)), "a node's id, program and version"),
    "lines in the node": (DELTA, request_bytes(CDS, node="a\nb"), "a node's id, program and version"),
    "no profile": (DELTA, request_bytes(CDS, node="x", metadata={}), "adsum"),
    "invalid profile": (DELTA, request_bytes(CDS, node="x", metadata={"adsum": {"listen": ["everywhere"]}}), "listen"),
    "long name": (DELTA, request_bytes(EDS, "x" * (MAX_NAME_LENGTH + 1), node="x"), "a name or version"),
    "long nonce": (DELTA, request_bytes(EDS, node="x", response_nonce="x" * (MAX_NAME_LENGTH + 1)), "a nonce"),
    "long version": (
        DELTA,
        request_bytes(EDS, node="x", initial_resource_versions={"a": "x" * 600}),
        "a name or version",
    ),
    "many names": (
        DELTA,
        request_bytes(EDS, *(f"s{n}" for n in range(MAX_GRPC_NAMES + 1)), node="x", agent="gRPC"),
        "at most 2000 names",
    ),
    "no load report": (LRS, b"\xff\xff\xff\xff", "the message is not a load report"),
    "load report without a node": (LRS, LoadStatsRequest().SerializeToString(), "must have a node id"),
    "no metrics message": (METRICS, b"\xff\xff\xff\xff", "the message is not a metrics message"),
    "metrics without a node": (METRICS, metrics_message(""), "must have a node id"),
    "metrics of a long node": (METRICS, metrics_message("x" * (MAX_NODE_LENGTH + 1)), "must have a node id"),
    "negative count": (
        METRICS,
        metrics_message("good", **{"cluster.orders.upstream_rq_2xx": -1.0}),
        "a count must be from 0",
    ),
    "count that is no number": (
        METRICS,
        metrics_message("good", **{"http.gateway.downstream_rq_5xx": math.nan}),
        "a count must be from 0",
    ),
    "infinite count": (
        METRICS,
        metrics_message("good", **{"http.gateway.downstream_rq_5xx": math.inf}),
        "a count must be from 0",
    ),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_peer_that_violates_the_protocol_is_refused_with_the_reason_and_no_other(
    world: MisbehavingPeersWorld, name: str
) -> None:
    method, message, reason = MISBEHAVIOURS[name]
    code, details = world.connect(method).send(message).status()
    assert code == "INVALID_ARGUMENT"
    assert reason in details
    world.check()
    [refused] = httpx.get(f"{world.daemon.url}/api/v1/status").json()["refused_streams"]
    assert (refused["code"], refused["reason"], refused["count"]) == (code, details, 1)
    assert 'adsum_xds_refused_total{code="INVALID_ARGUMENT"} 1.0' in world.metrics()


def test_a_refusal_reaches_a_peer_while_a_response_is_sent_to_it(
    world: MisbehavingPeersWorld, caplog: pytest.LogCaptureFixture
) -> None:
    greedy = request_bytes(ResourceKind.LISTENER, *(f"s{n}" for n in range(1_500)), node="x", agent="grpc", metadata={})
    peers = [world.connect().send(greedy, b"\xff\xff\xff") for _ in range(8)]
    assert [peer.status() for peer in peers] == [("INVALID_ARGUMENT", "the message is not a discovery request")] * 8
    assert not any(record.exc_info for record in caplog.records)
    world.check()


def test_unknown_kinds_and_wrong_nonces_are_ignored(world: MisbehavingPeersWorld) -> None:
    peer = world.connect().send(
        request_bytes("type.googleapis.com/no.such.Kind", "x", node="odd"),
        request_bytes(EDS, "orders", response_nonce="never-sent"),
        request_bytes(EDS, response_nonce="never-sent", error_detail={"code": 3, "message": "lies"}),
        request_bytes(CDS, node="another-node-than-before"),
    )
    until(lambda: len(peer.received) >= 2)
    world.check()
    status = httpx.get(f"{world.daemon.url}/api/v1/status").json()
    assert sorted(view["node"] for view in status["gateways"]) == ["good", "odd"]
    assert not any("rejections" in view for view in status["gateways"])


def test_a_flood_of_requests_delays_no_other_peer(world: MisbehavingPeersWorld) -> None:
    floods = [world.connect().send(request_bytes(CDS, node=f"flood{n}")) for n in range(3)]
    for flood in floods:
        flood.send(
            *(request_bytes(EDS, f"s{n % 700}", resource_names_unsubscribe=[f"s{n % 600}"]) for n in range(6_000))
        )
    for _ in range(5):
        world.check()
    assert all(flood.end is None for flood in floods)


def test_ended_streams_leave_no_trace(world: MisbehavingPeersWorld) -> None:
    for n in range(30):
        peer = world.connect()
        peer.send(request_bytes(CDS, node=f"brief{n}"), request_bytes(EDS, "orders"))
        until(lambda: peer.received)  # noqa: B023
        peer.close()
    until(lambda: len(httpx.get(f"{world.daemon.url}/api/v1/status").json()["gateways"]) == 1)
    world.check()


def test_load_reports_become_metrics_of_tries_by_instance(world: MisbehavingPeersWorld) -> None:
    peer = world.connect(LRS)
    report = LoadStatsRequest()
    report.node.id = "good"
    for name in ("orders", "no-service-of-ours"):
        part = report.cluster_stats.add(cluster_name=name).upstream_locality_stats.add()
        stats = part.upstream_endpoint_stats.add(total_issued_requests=7, total_error_requests=1)
        stats.address.socket_address.address, stats.address.socket_address.port_value = "127.0.0.1", world.port
    peer.send(report.SerializeToString(), report.SerializeToString())
    until(lambda: 'adsum_instance_tries_total{instance="a",service="orders"} 14.0' in world.metrics())
    assert 'adsum_instance_tries_failed_total{instance="a",service="orders"} 2.0' in world.metrics()
    assert LoadStatsResponse.FromString(peer.received[0]).send_all_clusters
    assert "no-service-of-ours" not in world.metrics()


def test_metrics_of_a_gateway_of_another_node_are_refused(world: MisbehavingPeersWorld) -> None:
    assert world.connect(METRICS).send(metrics_message("stranger")).status()[0] == "UNAVAILABLE"
    peer = world.connect(METRICS).send(metrics_message("good", **{"cluster.orders.upstream_rq_5xx": 3}))
    until(lambda: 'adsum_gateway_service_errors_total{gateway="good",service="orders"} 3.0' in world.metrics())
    assert peer.end is None
    peer.close()
    until(lambda: "adsum_gateway_service_errors_total{" not in world.metrics())
