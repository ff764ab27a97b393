"""Checks which registry nodes answer over xDS.

A node that only accepts connections, or has no catalog yet, does not count as answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final

from adsum.core.addresses import format_host_port
from adsum.core.backoff import jittered
from adsum.envoy.certificates.identity import RegistryIdentity
from adsum.envoy.plan import SocketAddress
from adsum.envoy.registry_health.xds_errors import NODE_ANSWER_TIMEOUT, answer_problem
from adsum.gateway.profile import HEALTH_PROBE_AGENT
from adsum.version import __version__

if TYPE_CHECKING:
    import grpc.aio

FIRST_ANSWER_TIMEOUT: Final = 1.0
"""Seconds to wait for the first of several nodes before Envoy starts without knowing which ones answer."""
FURTHER_ANSWERS_TIMEOUT: Final = 0.2
"""Seconds to wait for further nodes after the first. Envoy tries the nodes that answered first."""
RETRY_INTERVAL: Final = 1.0
"""Seconds between two checks, with a jitter of 10 %."""
_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_CLUSTERS: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.enable_http_proxy", 0),  # Envoy does not use a proxy either.
    ("grpc.use_local_subchannel_pool", 1),  # Each check opens a new connection, as Envoy will.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", f"{HEALTH_PROBE_AGENT}/{__version__}"),
)


async def is_reachable(nodes: Sequence[SocketAddress], identity: RegistryIdentity | None = None) -> bool:
    """Returns whether one of the nodes answers over xDS: in plain text, or over TLS with an identity."""
    return not await unreachable_reason(nodes, identity)


async def unreachable_reason(nodes: Sequence[SocketAddress], identity: RegistryIdentity | None = None) -> str:
    """Returns why no node answers over xDS, for the node that failed last; "" as soon as one answers."""
    tasks = [asyncio.create_task(_check_node(host, port, identity)) for host, port in nodes]
    reason = "there are no nodes"
    try:
        for outcome in asyncio.as_completed(tasks):
            reason = await outcome
            if not reason:
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return reason


async def responsive_nodes(
    nodes: Sequence[SocketAddress], identity: RegistryIdentity | None = None
) -> list[SocketAddress]:
    """Returns the nodes that answer over xDS within `FIRST_ANSWER_TIMEOUT` and soon after the first.

    A single node is returned unchecked.
    """
    if len(nodes) < 2:
        return list(nodes)
    checks = {asyncio.create_task(_check_node(*node, identity)): node for node in nodes}
    try:
        pending: set[asyncio.Task[str]] = set(checks)
        deadline = asyncio.get_running_loop().time() + FIRST_ANSWER_TIMEOUT
        while pending and not any(task.done() and not task.result() for task in checks):
            timeout = deadline - asyncio.get_running_loop().time()
            done, pending = await asyncio.wait(pending, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
        if pending:
            await asyncio.wait(pending, timeout=FURTHER_ANSWERS_TIMEOUT)
        return [node for task, node in checks.items() if task.done() and not task.result()]
    finally:
        for task in checks:
            task.cancel()
        await asyncio.gather(*checks, return_exceptions=True)


async def wait_until_reachable(
    nodes: Sequence[SocketAddress], identity: Callable[[], RegistryIdentity | None], rng: Random
) -> None:
    """Returns once one of the nodes answers; the first check comes after `RETRY_INTERVAL`.

    `identity` returns the newest one.
    """
    while True:
        await asyncio.sleep(jittered(RETRY_INTERVAL, rng))
        if await is_reachable(nodes, identity()):
            return


async def _check_node(host: str, port: int, identity: RegistryIdentity | None) -> str:
    """Returns why the node does not answer over xDS; "" if it does."""
    import grpc.aio  # A large import that only a running gateway needs.
    from envoy.config.core.v3.base_pb2 import Node
    from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

    request = DeltaDiscoveryRequest(
        node=Node(id=HEALTH_PROBE_AGENT, user_agent_name=HEALTH_PROBE_AGENT), type_url=_CLUSTERS
    )
    address = format_host_port(host, port)
    async with _open_channel(address, identity) as channel:
        stub: Any = channel.stream_stream(_METHOD, None, None)
        call = stub(timeout=NODE_ANSWER_TIMEOUT)
        try:
            await call.write(request.SerializeToString())
            response = await call.read()
        except grpc.aio.AioRpcError as error:
            return answer_problem(
                address,
                error.details() or error.code().name,
                is_timeout=error.code() is grpc.StatusCode.DEADLINE_EXCEEDED,
                has_tls=identity is not None,
            )
        finally:
            call.cancel()
    return "" if isinstance(response, bytes) else f"{address} ended the stream without an answer"


def _open_channel(address: str, identity: RegistryIdentity | None) -> grpc.aio.Channel:
    import grpc.aio

    if identity is None:
        return grpc.aio.insecure_channel(address, _OPTIONS)
    pair = identity.pair
    credentials = grpc.ssl_channel_credentials(
        identity.authorities, pair.key if pair is not None else None, pair.chain if pair is not None else None
    )
    return grpc.aio.secure_channel(address, credentials, _OPTIONS)
