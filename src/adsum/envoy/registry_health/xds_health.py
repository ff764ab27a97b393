"""Does anybody answer where the registry should be? Who only accepts connections, or has no catalog yet, does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from adsum.core.addresses import format_host_port
from adsum.core.backoff import jittered
from adsum.dialects.xds.settings import DEFAULT_XDS_PORT
from adsum.envoy.plan import SocketAddress
from adsum.gateway.profile import HEALTH_PROBE_AGENT
from adsum.version import __version__

NODE_ANSWER_TIMEOUT: Final = 3.0
"""Seconds that a node has to answer; one that takes longer counts as away."""
FIRST_ANSWER_TIMEOUT: Final = 1.0
"""Seconds that the first of several nodes has to answer before an Envoy is started without knowing who does."""
FURTHER_ANSWERS_TIMEOUT: Final = 0.2
"""Seconds that the other nodes have to answer after the first; an Envoy tries first those that did."""
RETRY_INTERVAL: Final = 1.0
"""Seconds between two looks, give or take a tenth."""
_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_CLUSTERS: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.enable_http_proxy", 0),  # Envoy uses none either.
    ("grpc.use_local_subchannel_pool", 1),  # Each question makes its own connection, as an Envoy will.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", f"{HEALTH_PROBE_AGENT}/{__version__}"),
)


async def is_reachable(nodes: Sequence[SocketAddress]) -> bool:
    """Whether one of them answers on xDS."""
    return not await unreachable_reason(nodes)


async def unreachable_reason(nodes: Sequence[SocketAddress]) -> str:
    """Why none of them answers on xDS, of the last that did not; "" once one does."""
    asking = [asyncio.create_task(_trouble(host, port)) for host, port in nodes]
    why = "there is none"
    try:
        for each in asyncio.as_completed(asking):
            why = await each
            if not why:
                break
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return why


async def responsive_nodes(nodes: Sequence[SocketAddress]) -> list[SocketAddress]:
    """Those that answer on xDS soon: within `FIRST_ANSWER_TIMEOUT`, and little later than the first. Of one place, nothing is asked."""
    if len(nodes) < 2:
        return list(nodes)
    asking = {asyncio.create_task(_trouble(*place)): place for place in nodes}
    try:
        left: set[asyncio.Task[str]] = set(asking)
        until = asyncio.get_running_loop().time() + FIRST_ANSWER_TIMEOUT
        while left and not any(each.done() and not each.result() for each in asking):
            patience = until - asyncio.get_running_loop().time()
            done, left = await asyncio.wait(left, timeout=max(0.0, patience), return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
        if left:
            await asyncio.wait(left, timeout=FURTHER_ANSWERS_TIMEOUT)
        return [place for each, place in asking.items() if each.done() and not each.result()]
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def wait_until_reachable(nodes: Sequence[SocketAddress], rng: Random) -> None:
    """Return once one of them does; not at once."""
    while True:
        await asyncio.sleep(jittered(RETRY_INTERVAL, rng))
        if await is_reachable(nodes):
            return


async def _trouble(host: str, port: int) -> str:
    import grpc.aio  # Large, and needed by nobody who only reads what a gateway is.
    from envoy.config.core.v3.base_pb2 import Node
    from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

    asked = DeltaDiscoveryRequest(
        node=Node(id=HEALTH_PROBE_AGENT, user_agent_name=HEALTH_PROBE_AGENT), type_url=_CLUSTERS
    )
    place = format_host_port(host, port)
    async with grpc.aio.insecure_channel(place, _OPTIONS) as channel:
        stub: Any = channel.stream_stream(_METHOD, None, None)
        call = stub(timeout=NODE_ANSWER_TIMEOUT)
        try:
            await call.write(asked.SerializeToString())
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            return _why(place, error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error.details() or error.code().name)
        finally:
            call.cancel()
    return "" if isinstance(answer, bytes) else f"{place} says nothing"


def _why(place: str, late: bool, details: str) -> str:
    if late:
        return f"{place} does not answer within {NODE_ANSWER_TIMEOUT:g} s"
    if "Expected SETTINGS frame" in details:
        return (
            f"{place} is no port for xDS (HTTP/1, maybe); a registry's is {DEFAULT_XDS_PORT} unless it says otherwise"
        )
    # Of several clauses, from the general to the particular, the last one says it.
    return f"{place}: {details.rpartition(': ')[2].strip('[]')}"
