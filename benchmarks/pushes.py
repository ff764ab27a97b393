"""One change pushed to 500 and to 2,000 xDS streams, and the time from a change to the first request routed by it."""

from __future__ import annotations

import asyncio
import http.client
import time
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.resources import ResourceKind
from benchmarks.harness.load import WrongAnswers, quantile
from benchmarks.harness.proxies import SERVICE, GatewayProxy, ServiceTarget
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode
from benchmarks.harness.table import Result, ResultRow, duration, durations, log_progress

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
MAX_CONCURRENT_CONNECTS: Final = 100
"""Streams that connect at a time."""
STREAMS_PER_CONNECTION: Final = 100
"""Streams on one connection."""
REQUEST_TIMEOUT: Final = 60.0
MAX_P50, MAX_P99 = 5e-3, 20e-3
"""The aims for the time from a change to the first request routed by it, in seconds."""


def run(options: RunOptions) -> list[Result]:
    rows: list[Result] = [_routed(options)]
    for many in (options.count(500, 20), options.count(2_000, 40)):
        log_progress(f"  {many:,} streams")
        with BenchmarkNode(options.folder, "memory:") as node:
            rows.append(asyncio.run(_pushed(options, node, many)))
    return rows


def _routed(options: RunOptions) -> ResultRow:
    """Moves the service from one instance to another and back.

    A delay is the time from the registry's answer to a change until the new instance answers a request.
    """
    delays = []
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(options.folder, "memory:"))
        targets = {name: stack.enter_context(ServiceTarget(options.folder, name)) for name in ("a", "b")}
        targets["a"].register(node, "a")
        gateway = stack.enter_context(GatewayProxy(options.folder, node))
        gateway.wait_until(lambda: _answer_through(gateway) == "a")
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT)
        for turn in range(options.count(200, 10)):
            old, new = ("a", "b") if turn % 2 == 0 else ("b", "a")
            targets[new].register(node, new)
            began = time.monotonic()
            while _answer_through(gateway, connection) != new:
                if time.monotonic() - began > REQUEST_TIMEOUT:
                    raise WrongAnswers("no request was routed by a change")
            delays.append(time.monotonic() - began)
            _deregister(node, old)
            while _answer_through(gateway, connection) != new:
                pass
            time.sleep(0.05)  # Changes that are close together are coalesced; here each is measured alone.
    delays.sort()
    p50, p99 = median(delays), quantile(delays, 0.99)
    return ResultRow(
        f"a change to the first request routed by it, {len(delays)} changes: p50 / p99 / max",
        durations([p50, p99, delays[-1]]),
        aim=f"< {duration(MAX_P50)} / < {duration(MAX_P99)}",
        is_met=p50 < MAX_P50 and p99 < MAX_P99,
        values=(("p50", p50), ("p99", p99), ("max", delays[-1])),
    )


def _answer_through(gateway: GatewayProxy, connection: http.client.HTTPConnection | None = None) -> str:
    own = connection or http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT)
    own.request("GET", f"/{SERVICE}/")
    answer = own.getresponse().read().decode()
    if connection is None:
        own.close()
    return answer


def _deregister(node: BenchmarkNode, id: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=REQUEST_TIMEOUT)
    connection.request("DELETE", f"/api/v1/services/{SERVICE}/instances/{id}")
    if connection.getresponse().status != 200:
        raise WrongAnswers("an instance could not be deregistered")
    connection.close()


class _Stream:
    """A minimal gateway: it subscribes to one assignment, and acknowledges each response."""

    def __init__(self, channel: Any, number: int) -> None:
        method = channel.stream_stream(
            METHOD,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        self._call = method()
        self._number = number
        self.received_at = 0.0

    async def connect(self) -> None:
        request = DeltaDiscoveryRequest(type_url=ResourceKind.ASSIGNMENT.value, resource_names_subscribe=[SERVICE])
        request.node.id, request.node.user_agent_name = f"bench-{self._number}", "envoy"
        request.node.metadata.update(GatewayProfile(listen=("127.0.0.1:1",)).metadata())
        await self._call.write(request)
        await self.next()

    async def next(self) -> None:
        """Receives one response and acknowledges it."""
        response = await self._call.read()
        self.received_at = time.monotonic()
        await self._call.write(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))

    def close(self) -> None:
        self._call.cancel()


async def _pushed(options: RunOptions, node: BenchmarkNode, many: int) -> ResultRow:
    registration = {"address": "127.0.0.1", "port": 1, "ttl": None}
    node.put(f"/api/v1/services/{SERVICE}/instances/o0", registration)
    channel_options = [("grpc.use_local_subchannel_pool", 1)]
    connections = -(-many // STREAMS_PER_CONNECTION)
    channels = [grpc.aio.insecure_channel(node.xds, options=channel_options) for _ in range(connections)]
    streams = [_Stream(channels[number // STREAMS_PER_CONNECTION], number) for number in range(many)]
    for first in range(0, many, MAX_CONCURRENT_CONNECTS):
        async with asyncio.timeout(REQUEST_TIMEOUT):
            await asyncio.gather(*(stream.connect() for stream in streams[first : first + MAX_CONCURRENT_CONNECTS]))
    delays, spent = [], []
    for turn in range(options.count(10, 2)):
        before = node.cpu()
        receiving = [asyncio.create_task(stream.next()) for stream in streams]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(
            node.put, f"/api/v1/services/{SERVICE}/instances/o{turn + 1}", {**registration, "port": 2 + turn}
        )
        async with asyncio.timeout(REQUEST_TIMEOUT):
            await asyncio.gather(*receiving)
        delays.append(max(stream.received_at for stream in streams) - began)
        await asyncio.sleep(0.5)
        spent.append((node.cpu() - before) / many)
    for stream in streams:
        stream.close()
    for channel in channels:
        await channel.close(None)
    last, cpu = median(delays), median(spent)
    text = f"{duration(last)} until the last, CPU {duration(cpu)} each"
    return ResultRow(f"one change to the streams of {many:,} gateways", text, values=(("last", last), ("cpu", cpu)))
