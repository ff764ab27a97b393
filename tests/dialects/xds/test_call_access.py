"""Access control of xDS with a real gRPC server and real clients: tokens, certificates, and the end of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from adsum.access.sessions import RIGHTS_CHANGED
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import NO_SCOPES, parse_scopes
from adsum.core.errors import Unauthenticated
from adsum.dialects.xds.streams.request import MAX_REQUEST_BYTES
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.servers.grpc import GrpcServer
from tests.dialects.xds.fakes import CDS
from tests.dialects.xds.streams.streams_world import ADS, StreamsWorld
from tests.support.server_certificates import FakeServerCertificates, der
from tests.support.tokens import make_token, revoke_token

WAIT_TIMEOUT = 20.0
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
METRICS = "/envoy.service.metrics.v3.MetricsService/StreamMetrics"
DELTA = f"{ADS}/DeltaAggregatedResources"


class FakeCertificateVerifier:
    """Implements `access.control.CertificateVerifier` for the certificates that a test names."""

    def __init__(self) -> None:
        self.principals: dict[bytes, Principal] = {}

    def identify(self, certificate: bytes) -> Principal:
        if certificate not in self.principals:
            raise Unauthenticated("this certificate belongs to nobody", reason="wrong-credentials")
        return self.principals[certificate]


class GrpcWorld(StreamsWorld):
    """A registry in which callers that prove nothing may do nothing, behind a real gRPC server."""

    def __init__(self, certificates: FakeServerCertificates | None) -> None:
        super().__init__(NO_SCOPES, NO_RESOURCES)
        self.certificates = certificates
        self.verifier = FakeCertificateVerifier()
        self.access.certificates = self.verifier
        self._server = GrpcServer(self.xds.methods, MAX_REQUEST_BYTES, 100, certificates)
        self.address = ""

    async def start(self) -> None:
        await self.registry.start()
        await self.xds.start()
        self.access.start()
        self.address = await self._server.start("127.0.0.1:0")
        for service in ("orders", "users"):
            await self.register("a", service)

    async def stop(self) -> None:
        await self.xds.stop()
        await self._server.stop()
        await self.access.stop()
        await self.registry.stop()

    def channel(self, client: trustme.LeafCert | None = None) -> Any:
        if self.certificates is None:
            return grpc.aio.insecure_channel(self.address)
        chain = b"".join(blob.bytes() for blob in client.cert_chain_pems) if client is not None else None
        key = client.private_key_pem.bytes() if client is not None else None
        credentials = grpc.ssl_channel_credentials(self.certificates.client_authorities(), key, chain)
        return grpc.aio.secure_channel(self.address, credentials)


@asynccontextmanager
async def _world(certificates: FakeServerCertificates | None = None) -> AsyncIterator[GrpcWorld]:
    world = GrpcWorld(certificates)
    await world.start()
    try:
        async with asyncio.timeout(WAIT_TIMEOUT):
            yield world
    finally:
        await world.stop()


def _call(channel: Any, token: str = "", method: str = DELTA) -> Any:
    return channel.stream_stream(method)(metadata=(("authorization", f"Bearer {token}"),) if token else ())


async def _request_clusters(call: Any) -> None:
    request: Any = DeltaDiscoveryRequest(type_url=CDS.value)
    request.node.id, request.node.user_agent_name = "gw1", "envoy"
    metadata: Mapping[str, Any] = GatewayProfile(listen=("127.0.0.1:8080",)).metadata()
    request.node.metadata.update(metadata)
    await call.write(request.SerializeToString())


async def _clusters(call: Any) -> set[str]:
    """Returns the clusters in the first response."""
    await _request_clusters(call)
    return {resource.name for resource in DeltaDiscoveryResponse.FromString(await call.read()).resources}


async def _status(call: Any) -> tuple[str, str]:
    """Waits for the end of the call. Returns its status and details."""
    code = await call.code()
    return code.name, await call.details()


@pytest.mark.parametrize("method", [DELTA, f"{ADS}/StreamAggregatedResources", LRS, METRICS])
async def test_a_call_without_a_token_ends_with_unauthenticated(method: str) -> None:
    async with _world() as world, world.channel() as channel:
        code, details = await _status(_call(channel, method=method))
    assert code == "UNAUTHENTICATED"
    assert details.startswith("this needs a token")


async def test_a_token_without_the_right_ends_with_permission_denied() -> None:
    async with _world() as world, world.channel() as channel:
        code, details = await _status(_call(channel, await world.declare("useless")))
    assert code == "PERMISSION_DENIED"
    assert details.startswith("useless may not do this")


async def test_a_wrong_token_ends_with_unauthenticated_and_is_not_repeated() -> None:
    wrong = make_token("nobody")[1]
    async with _world() as world, world.channel() as channel:
        code, details = await _status(_call(channel, wrong))
    assert code == "UNAUTHENTICATED"
    assert wrong not in details


async def test_a_token_in_the_metadata_gives_its_services() -> None:
    async with _world() as world, world.channel() as channel:
        assert await _clusters(_call(channel, await world.declare("limited", "read:orders"))) == {"orders"}
        assert await _clusters(_call(channel, await world.declare("whole", "read:*"))) == {"orders", "users"}


@pytest.mark.parametrize("method", [DELTA, LRS, METRICS])
async def test_a_revoked_token_ends_a_call_with_unauthenticated(method: str) -> None:
    async with _world() as world, world.channel() as channel:
        call = _call(channel, await world.declare("ci", "read:*"), method)
        if method == DELTA:
            await _clusters(call)
        await call.initial_metadata() if method == DELTA else await world.settle()
        while not len(world.access.sessions):
            await world.settle()
        await revoke_token(world.registry, "ci")
        assert await _status(call) == ("UNAUTHENTICATED", RIGHTS_CHANGED)
        assert len(world.access.sessions) == 0


async def test_a_call_waits_until_the_tokens_are_loaded() -> None:
    world = GrpcWorld(None)
    server = GrpcServer(world.xds.methods, MAX_REQUEST_BYTES, 100)
    world.address = await server.start("127.0.0.1:0")
    try:
        async with asyncio.timeout(WAIT_TIMEOUT), world.channel() as channel:
            call = _call(channel)
            while not world.registry.watches.count:
                await world.settle()
            assert not call.done()
            world.registry.watches.end()
            assert await _status(call) == ("UNAVAILABLE", "the node is stopping")
    finally:
        await server.stop()


async def test_a_client_certificate_proves_who_a_grpc_caller_is() -> None:
    certificates = FakeServerCertificates()
    client, stranger = certificates.issue_client(), certificates.issue_client()
    async with _world(certificates) as world, world.channel(client) as channel, world.channel(stranger) as other:
        scopes = parse_scopes("scopes", ["read:users"])
        world.verifier.principals[der(client)] = Principal("gateway", scopes, method="certificate")
        assert await _clusters(_call(channel)) == {"users"}
        code, details = await _status(_call(other))
        assert (code, details) == ("UNAUTHENTICATED", "this certificate belongs to nobody")
        token = await world.declare("orders-only", "read:orders")
        assert await _clusters(_call(channel, token)) == {"orders"}, "a token outranks the certificate"


async def test_a_grpc_caller_without_a_certificate_gets_no_connection_over_tls() -> None:
    certificates = FakeServerCertificates()
    async with _world(certificates) as world, world.channel() as channel:
        code, _ = await _status(_call(channel, await world.declare("whole", "read:*")))
    assert code == "UNAVAILABLE"
