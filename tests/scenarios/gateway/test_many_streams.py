"""Two thousand xDS streams at one node: all receive a change, and a stream that opens meanwhile is served."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc.aio
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.resources import ResourceKind
from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioSandbox

STREAMS = 2_000
"""Streams, each on a connection of its own as gateways have; fewer connections if the system allows no more."""
MAX_CONCURRENT_CONNECTS = 100
"""Streams that connect at the same time."""
FIRST, SECOND = 1, 2
"""Ports of instances that are never called."""
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class BareStream:
    """The stream of a minimal gateway: it subscribes to a service's assignment and acknowledges every response."""

    def __init__(self, channel: Any, id: str, service: str) -> None:
        method = channel.stream_stream(
            METHOD,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        self._call = method()
        self._id, self._service = id, service

    async def connect(self) -> set[int]:
        request = DeltaDiscoveryRequest(
            type_url=ResourceKind.ASSIGNMENT.value, resource_names_subscribe=[self._service]
        )
        request.node.id, request.node.user_agent_name = self._id, "envoy"
        request.node.metadata.update(GatewayProfile(listen=("127.0.0.1:1",)).metadata())
        await self._call.write(request)
        return await self.next()

    async def next(self) -> set[int]:
        """Returns the ports in the next assignment."""
        response = await self._call.read()
        await self._call.write(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
        (encoded,) = response.resources
        assignment = ClusterLoadAssignment()
        encoded.resource.Unpack(assignment)
        assert encoded.name == self._service
        return {
            endpoint.endpoint.address.socket_address.port_value
            for locality in assignment.endpoints
            for endpoint in locality.lb_endpoints
        }

    async def wait_for_port(self, port: int) -> None:
        """Returns once an assignment has the port. Changes that come together arrive in one assignment."""
        while port not in await self.next():
            pass


@contextmanager
def many_files() -> Iterator[int]:
    """Raises the limit of open files to the maximum. Yields how many of them connections may use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield STREAMS if hard == resource.RLIM_INFINITY else min(STREAMS, hard // 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _connect_all(streams: list[BareStream]) -> None:
    """Connects all streams. Each receives the first instance."""
    for first in range(0, len(streams), MAX_CONCURRENT_CONNECTS):
        ports_of_streams = await asyncio.gather(
            *(stream.connect() for stream in streams[first : first + MAX_CONCURRENT_CONNECTS])
        )
        assert all(ports == {FIRST} for ports in ports_of_streams)


async def _list(api: JsonApi, service: str, port: int) -> None:
    await api.put(f"/services/{service}/instances/o{port}", port=port, address="127.0.0.1", ttl=None)


async def test_two_thousand_streams_receive_a_change_and_a_new_stream_is_served(sandbox: ScenarioSandbox) -> None:
    xds = f"127.0.0.1:{sandbox.port()}"
    async with AsyncExitStack() as stack, asyncio.timeout(3 * SCENARIO_TIMEOUT):
        connections = stack.enter_context(many_files())
        await sandbox.start_registry("memory:", "--xds", xds)
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(xds, options)) for _ in range(connections + 1)
        ]
        for service in ("orders", "other"):
            await _list(api, service, FIRST)
        streams = [BareStream(channels[n % connections], f"many-{n}", "orders") for n in range(STREAMS)]
        await _connect_all(streams)
        metrics = (await api.http.get(f"{sandbox.url}/metrics")).text
        assert f'adsum_xds_streams{{program="envoy"}} {STREAMS:.1f}\n' in metrics

        receiving = asyncio.gather(*(stream.wait_for_port(SECOND) for stream in streams))
        written = asyncio.create_task(_list(api, "orders", SECOND))
        one_more = BareStream(channels[-1], "one-more", "other")
        assert await one_more.connect() == {FIRST}
        await _list(api, "other", SECOND)
        await one_more.wait_for_port(SECOND)
        await written
        await receiving

        # A drain is confirmed only once each of them has acknowledged it.
        acknowledging = asyncio.gather(*(stream.next() for stream in streams))
        drained = await api.put(f"/services/orders/instances/o{FIRST}/override", status="draining", wait=20)
        await acknowledging
        assert not drained.get("unacknowledged"), drained
