"""One change told to 500 and to 2,000 xDS streams, and from a change to the first request that is routed by it."""

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
"""Streams that connect at the same time."""
STREAMS_PER_CONNECTION: Final = 100
"""Streams of one connection."""
REQUEST_TIMEOUT: Final = 60.0
MEDIAN, SLOW = 5e-3, 20e-3
"""Aims for a change to be routed by: the median and the p99, in seconds."""


def run(setting: RunOptions) -> list[Result]:
    rows: list[Result] = [_routed(setting)]
    for many in (setting.count(500, 20), setting.count(2_000, 40)):
        log_progress(f"  {many:,} streams")
        with BenchmarkNode(setting.folder, "memory:") as node:
            rows.append(asyncio.run(_pushed(setting, node, many)))
    return rows


def _routed(setting: RunOptions) -> ResultRow:
    """The service moves from one instance to another and back; the delay runs from the registry's answer to the change
    until a request is answered by the new one.
    """
    took = []
    with ExitStack() as stack:
        node = stack.enter_context(BenchmarkNode(setting.folder, "memory:"))
        here = {name: stack.enter_context(ServiceTarget(setting.folder, name)) for name in ("a", "b")}
        here["a"].register(node, "a")
        gateway = stack.enter_context(GatewayProxy(setting.folder, node))
        gateway.wait_until(lambda: _asked(gateway) == "a")
        asking = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT)
        for turn in range(setting.count(200, 10)):
            old, new = ("a", "b") if turn % 2 == 0 else ("b", "a")
            here[new].register(node, new)
            began = time.monotonic()
            while _asked(gateway, asking) != new:
                if time.monotonic() - began > REQUEST_TIMEOUT:
                    raise WrongAnswers("a change was never routed by")
            took.append(time.monotonic() - began)
            _leave(node, old)
            while _asked(gateway, asking) != new:
                pass
            time.sleep(0.05)  # Changes that come together are told together: here each comes alone.
    took.sort()
    middle, slow = median(took), quantile(took, 0.99)
    return ResultRow(
        f"a change to the first request routed by it, {len(took)} changes: p50 / p99 / max",
        durations([middle, slow, took[-1]]),
        aim=f"< {duration(MEDIAN)} / < {duration(SLOW)}",
        is_met=middle < MEDIAN and slow < SLOW,
        values=(("p50", middle), ("p99", slow), ("max", took[-1])),
    )


def _asked(gateway: GatewayProxy, asking: http.client.HTTPConnection | None = None) -> str:
    own = asking or http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT)
    own.request("GET", f"/{SERVICE}/")
    answer = own.getresponse().read().decode()
    if asking is None:
        own.close()
    return answer


def _leave(node: BenchmarkNode, id: str) -> None:
    asking = http.client.HTTPConnection("127.0.0.1", node.port, timeout=REQUEST_TIMEOUT)
    asking.request("DELETE", f"/api/v1/services/{SERVICE}/instances/{id}")
    if asking.getresponse().status != 200:
        raise WrongAnswers("an instance could not be taken out")
    asking.close()


class _Stream:
    """A gateway as bare as can be: it asks for one assignment and acknowledges what it is told."""

    def __init__(self, channel: Any, number: int) -> None:
        ask = channel.stream_stream(
            METHOD,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        self._call = ask()
        self._number = number
        self.told_at = 0.0

    async def connect(self) -> None:
        hello = DeltaDiscoveryRequest(type_url=ResourceKind.ASSIGNMENT.value, resource_names_subscribe=[SERVICE])
        hello.node.id, hello.node.user_agent_name = f"bench-{self._number}", "envoy"
        hello.node.metadata.update(GatewayProfile(listen=("127.0.0.1:1",)).metadata())
        await self._call.write(hello)
        await self.next()

    async def next(self) -> None:
        """Hear one response and acknowledge it."""
        heard = await self._call.read()
        self.told_at = time.monotonic()
        await self._call.write(DeltaDiscoveryRequest(type_url=heard.type_url, response_nonce=heard.nonce))

    def close(self) -> None:
        self._call.cancel()


async def _pushed(setting: RunOptions, node: BenchmarkNode, many: int) -> ResultRow:
    where = {"address": "127.0.0.1", "port": 1, "ttl": None}
    node.put(f"/api/v1/services/{SERVICE}/instances/o0", where)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(node.xds, options=options) for _ in range(-(-many // STREAMS_PER_CONNECTION))]
    streams = [_Stream(channels[number // STREAMS_PER_CONNECTION], number) for number in range(many)]
    for first in range(0, many, MAX_CONCURRENT_CONNECTS):
        async with asyncio.timeout(REQUEST_TIMEOUT):
            await asyncio.gather(*(stream.connect() for stream in streams[first : first + MAX_CONCURRENT_CONNECTS]))
    took, spent = [], []
    for turn in range(setting.count(10, 2)):
        before = node.cpu()
        hearing = [asyncio.create_task(stream.next()) for stream in streams]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(
            node.put, f"/api/v1/services/{SERVICE}/instances/o{turn + 1}", {**where, "port": 2 + turn}
        )
        async with asyncio.timeout(REQUEST_TIMEOUT):
            await asyncio.gather(*hearing)
        took.append(max(stream.told_at for stream in streams) - began)
        await asyncio.sleep(0.5)
        spent.append((node.cpu() - before) / many)
    for stream in streams:
        stream.close()
    for channel in channels:
        await channel.close(None)
    last, each = median(took), median(spent)
    words = f"{duration(last)} until the last, CPU {duration(each)} each"
    return ResultRow(f"one change to {many:,} gateways' streams", words, values=(("last", last), ("cpu", each)))
