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

from adsum.gateway.profile import Shape
from adsum.gateway.resources.resources import Kind
from benchmarks.harness.load import WrongAnswers, quantile
from benchmarks.harness.proxies import SERVICE, Gateway, Target
from benchmarks.harness.run_options import Setting
from benchmarks.harness.servers import Node
from benchmarks.harness.table import Result, Row, length, lengths, say

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
AT_ONCE: Final = 100
"""Streams that connect at the same time."""
A_CHANNEL: Final = 100
"""Streams of one connection."""
PATIENCE: Final = 60.0
MEDIAN, SLOW = 5e-3, 20e-3
"""Aims for a change to be routed by: the median and the p99, in seconds."""


def run(setting: Setting) -> list[Result]:
    rows: list[Result] = [_routed(setting)]
    for many in (setting.so_many(500, 20), setting.so_many(2_000, 40)):
        say(f"  {many:,} streams")
        with Node(setting.folder, "memory:") as node:
            rows.append(asyncio.run(_pushed(setting, node, many)))
    return rows


def _routed(setting: Setting) -> Row:
    """The service moves from one instance to another and back; the delay runs from the registry's answer to the change
    until a request is answered by the new one.
    """
    took = []
    with ExitStack() as stack:
        node = stack.enter_context(Node(setting.folder, "memory:"))
        here = {name: stack.enter_context(Target(setting.folder, name)) for name in ("a", "b")}
        here["a"].register(node, "a")
        gateway = stack.enter_context(Gateway(setting.folder, node))
        gateway.wait_until(lambda: _asked(gateway) == "a")
        asking = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
        for turn in range(setting.so_many(200, 10)):
            old, new = ("a", "b") if turn % 2 == 0 else ("b", "a")
            here[new].register(node, new)
            began = time.monotonic()
            while _asked(gateway, asking) != new:
                if time.monotonic() - began > PATIENCE:
                    raise WrongAnswers("a change was never routed by")
            took.append(time.monotonic() - began)
            _leave(node, old)
            while _asked(gateway, asking) != new:
                pass
            time.sleep(0.05)  # Changes that come together are told together: here each comes alone.
    took.sort()
    middle, slow = median(took), quantile(took, 0.99)
    return Row(
        f"a change to the first request routed by it, {len(took)} changes: p50 / p99 / max",
        lengths([middle, slow, took[-1]]),
        aim=f"< {length(MEDIAN)} / < {length(SLOW)}",
        met=middle < MEDIAN and slow < SLOW,
        values=(("p50", middle), ("p99", slow), ("max", took[-1])),
    )


def _asked(gateway: Gateway, asking: http.client.HTTPConnection | None = None) -> str:
    own = asking or http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
    own.request("GET", f"/{SERVICE}/")
    answer = own.getresponse().read().decode()
    if asking is None:
        own.close()
    return answer


def _leave(node: Node, id: str) -> None:
    asking = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
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
        hello = DeltaDiscoveryRequest(type_url=Kind.ASSIGNMENT.value, resource_names_subscribe=[SERVICE])
        hello.node.id, hello.node.user_agent_name = f"bench-{self._number}", "envoy"
        hello.node.metadata.update(Shape(listen=("127.0.0.1:1",)).metadata())
        await self._call.write(hello)
        await self.next()

    async def next(self) -> None:
        """Hear one response and acknowledge it."""
        heard = await self._call.read()
        self.told_at = time.monotonic()
        await self._call.write(DeltaDiscoveryRequest(type_url=heard.type_url, response_nonce=heard.nonce))

    def close(self) -> None:
        self._call.cancel()


async def _pushed(setting: Setting, node: Node, many: int) -> Row:
    where = {"address": "127.0.0.1", "port": 1, "ttl": None}
    node.put(f"/api/v1/services/{SERVICE}/instances/o0", where)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(node.xds, options=options) for _ in range(-(-many // A_CHANNEL))]
    streams = [_Stream(channels[number // A_CHANNEL], number) for number in range(many)]
    for first in range(0, many, AT_ONCE):
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(stream.connect() for stream in streams[first : first + AT_ONCE]))
    took, spent = [], []
    for turn in range(setting.so_many(10, 2)):
        before = node.cpu()
        hearing = [asyncio.create_task(stream.next()) for stream in streams]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(
            node.put, f"/api/v1/services/{SERVICE}/instances/o{turn + 1}", {**where, "port": 2 + turn}
        )
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*hearing)
        took.append(max(stream.told_at for stream in streams) - began)
        await asyncio.sleep(0.5)
        spent.append((node.cpu() - before) / many)
    for stream in streams:
        stream.close()
    for channel in channels:
        await channel.close(None)
    last, each = median(took), median(spent)
    words = f"{length(last)} until the last, CPU {length(each)} each"
    return Row(f"one change to {many:,} gateways' streams", words, values=(("last", last), ("cpu", each)))
