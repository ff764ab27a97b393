"""TLS of the gRPC server: certificates in both directions, metadata, and handshakes that fail or do not end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import warnings
from collections.abc import Iterator, Sequence

import grpc
import pytest
import trustme
from cryptography import x509

from adsum.servers.grpc import options
from adsum.servers.grpc.credentials import CertificateFetcher, peer_certificate
from adsum.servers.grpc.server import text_metadata
from tests.servers.grpc.serving import EchoMethod, GrpcPeer, GrpcServing, client_credentials
from tests.support.server_certificates import FakeServerCertificates, der, issue_client
from tests.support.waiting import until


@pytest.fixture
def certificates() -> FakeServerCertificates:
    return FakeServerCertificates()


@contextlib.contextmanager
def _peer(
    address: str,
    certificates: FakeServerCertificates,
    client: trustme.LeafCert | None,
    *messages: bytes,
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> Iterator[GrpcPeer]:
    peer = GrpcPeer(address, *messages, credentials=client_credentials(certificates, client), metadata=metadata)
    try:
        yield peer
    finally:
        peer.close()


def _served_serial_number(address: str, context: ssl.SSLContext) -> int:
    """Returns the serial number of the certificate that the server shows on a new connection."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        certificate = tls.getpeercert(True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


async def test_a_call_has_the_client_certificate_and_its_metadata(certificates: FakeServerCertificates) -> None:
    echo, client = EchoMethod(), certificates.issue_client()
    repeated: list[tuple[str, str | bytes]] = [("a", "1"), ("a", "2")]
    metadata = [("authorization", "Bearer x"), *repeated, ("trace-bin", b"\x00\xff")]
    async with GrpcServing(certificates).server(echo) as (_, address):
        with _peer(address, certificates, client, b"hi", metadata=metadata) as peer:
            await until(lambda: peer.received == [b"hi"])
    assert echo.calls[0].certificate == der(client)
    found = echo.calls[0].metadata
    assert (found["authorization"], found["a"]) == ("Bearer x", "1, 2")
    assert "trace-bin" not in found


async def test_a_call_without_tls_has_metadata_and_no_certificate() -> None:
    echo = EchoMethod()
    async with GrpcServing().server(echo) as (_, address):
        peer = GrpcPeer(address, b"hi", metadata=[("authorization", "Bearer x")])
        await until(lambda: peer.received == [b"hi"])
        peer.close()
    assert echo.calls[0].certificate == b""
    assert echo.calls[0].metadata["authorization"] == "Bearer x"


@pytest.mark.parametrize("kind", ["none", "unknown authority", "expired", "plain text"])
async def test_a_client_without_a_valid_certificate_is_refused_and_others_are_served(
    certificates: FakeServerCertificates, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    echo = EchoMethod()
    clients = {
        "none": None,
        "unknown authority": issue_client(trustme.CA()),
        "expired": certificates.issue_expired_client(),
    }
    async with GrpcServing(certificates).server(echo) as (_, address):
        credentials = client_credentials(certificates, clients[kind]) if kind in clients else None
        refused = GrpcPeer(address, b"hi", credentials=credentials)
        assert (await refused.ended())[0] == "UNAVAILABLE"
        refused.close()
        assert echo.calls == []
        with _peer(address, certificates, certificates.issue_client(), b"hi") as peer:
            await until(lambda: peer.received == [b"hi"])
    assert not caplog.records


async def test_versions_before_1_2_are_refused(certificates: FakeServerCertificates) -> None:
    context = certificates.client_context(certificates.issue_client())
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with GrpcServing(certificates).server(EchoMethod()) as (_, address):
        with pytest.raises(OSError):  # an alert or a reset
            await asyncio.to_thread(_served_serial_number, address, context)


async def test_a_replaced_certificate_counts_for_new_connections_and_open_ones_go_on(
    certificates: FakeServerCertificates,
) -> None:
    context = certificates.client_context(certificates.issue_client())
    context.set_alpn_protocols(["h2"])
    echo = EchoMethod()
    async with GrpcServing(certificates).server(echo) as (_, address):
        with _peer(address, certificates, certificates.issue_client(), b"hi") as old:
            await until(lambda: old.received == [b"hi"])
            first = await asyncio.to_thread(_served_serial_number, address, context)
            assert first == certificates.serial_number
            certificates.replace()
            second = await asyncio.to_thread(_served_serial_number, address, context)
            assert second == certificates.serial_number != first
            await echo.calls[0].write(b"still here")
            await until(lambda: old.received == [b"hi", b"still here"])


def test_a_certificate_that_cannot_be_used_leaves_the_last_one(
    certificates: FakeServerCertificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fetcher = CertificateFetcher(certificates)
    assert fetcher() is None
    certificates.replace()

    def fail() -> tuple[bytes, bytes]:
        raise OSError("no such file")

    with monkeypatch.context() as broken:
        broken.setattr(certificates, "key_pair", fail)
        assert fetcher() is None
        assert fetcher() is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert isinstance(fetcher(), grpc.ServerCertificateConfiguration)
    assert fetcher() is None


def test_the_properties_of_a_connection_may_have_no_certificate() -> None:
    assert peer_certificate(None) == b""
    assert peer_certificate({"transport_security_type": [b"ssl"]}) == b""


async def test_half_and_wrong_handshakes_do_not_disturb_others(
    certificates: FakeServerCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "HANDSHAKE_TIMEOUT", 1.0)
    chance = random.Random(7)
    openings = [b"", b"\x16", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
    openings += [b"\x16\x03\x01" + chance.randbytes(chance.randint(1, 400)) for _ in range(100)]
    async with GrpcServing(certificates).server(EchoMethod()) as (_, address):
        host, _, port = address.rpartition(":")
        opened = []
        for opening in openings:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(opening)
            opened.append((reader, writer))
        with _peer(address, certificates, certificates.issue_client(), b"hi") as peer:
            await until(lambda: peer.received == [b"hi"])
        for reader, writer in opened:
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 20.0)
            writer.transport.abort()


async def test_half_open_handshakes_keep_others_waiting_no_longer_than_their_timeout(
    certificates: FakeServerCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "HANDSHAKE_TIMEOUT", 1.0)
    async with GrpcServing(certificates).server(EchoMethod(), connections=20) as (_, address):
        host, _, port = address.rpartition(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(60)]
        answers: list[list[bytes]] = []
        deadline = asyncio.get_running_loop().time() + 20.0
        while [b"hi"] not in answers:
            with _peer(address, certificates, certificates.issue_client(), b"hi") as peer:
                peer.over.set()
                await peer.ended()
            answers.append(peer.received)
            assert asyncio.get_running_loop().time() < deadline
        for one in idle:
            one.close()


def test_metadata_has_text_only_and_joins_repeated_names() -> None:
    assert text_metadata([("a", "1"), ("b-bin", b"\x00"), ("a", "2")]) == {"a": "1, 2"}
