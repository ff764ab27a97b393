"""The checks of a program before it is registered."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from adsum.client.registration.check_specs import parse_check
from adsum.core.model import Instance, Registration
from adsum.run.port import claim_free_port, first_answering_host, listening_addresses
from adsum.run.readiness import check_passes, wait_until_ready


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """A server that answers 200 to /ok, 503 to /no, and garbage to /odd."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(4_096)
        lines = {b"/ok": b"HTTP/1.1 200 OK\r\n\r\n", b"/no": b"HTTP/1.1 503 No\r\n\r\n", b"/odd": b"hello\n"}
        if head:
            writer.write(lines.get(head.split(b" ")[1], b""))  # A TLS client gets no answer.
        writer.close()

    claim = claim_free_port(Random())
    server = await asyncio.start_server(answer, "127.0.0.1", claim.port)
    yield claim.port
    server.close()
    claim.release()


@pytest.mark.parametrize(
    ("check", "passes"),
    [
        ("tcp", True),
        ("grpc", True),
        ("http:/ok", True),
        ("http:/no", False),
        ("http:/no?expect=503", True),
        ("http:/odd", False),
        ("https:/ok", False),
    ],
)
async def test_a_check_has_the_same_result_as_in_the_registry(server: int, check: str, passes: bool) -> None:
    assert await check_passes(parse_check(check), "127.0.0.1", server) is passes


@pytest.mark.parametrize("check", ["http:/ok", "https:/ok", "tcp", "grpc"])
async def test_checks_of_an_https_program_use_tls_as_in_the_registry(check: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4_096):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).parents[1] / "probes" / "certificate.pem")
    serving = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = serving.sockets[0].getsockname()[1]
    instance = Instance("orders", "o1", "127.0.0.1", port, "https")
    async with asyncio.timeout(20.0):
        await wait_until_ready(Registration(instance, checks=(parse_check(check),)), ["127.0.0.1"])
    serving.close()


async def test_a_tcp_check_only_connects_as_in_the_registry(server: int) -> None:
    assert await check_passes(replace(parse_check("tcp"), tls=True), "127.0.0.1", server)


async def test_no_program_answers_on_a_free_port() -> None:
    claim = claim_free_port(Random())
    assert first_answering_host(claim.port, ["127.0.0.1", "::1"]) == ""
    assert listening_addresses(claim.port) == []
    assert not await check_passes(parse_check("tcp"), "127.0.0.1", claim.port)
    claim.release()


@pytest.mark.parametrize("address", ["127.0.0.5", "0.0.0.0", "::1"])
async def test_the_address_of_a_listening_program_is_found(address: str) -> None:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), address, 0)
    port = listening.sockets[0].getsockname()[1]
    assert listening_addresses(port) == [address]
    host = "127.0.0.1" if address == "0.0.0.0" else address
    assert first_answering_host(port, ["127.0.0.9", host] if address != "0.0.0.0" else [host]) == host
    listening.close()


def test_two_wrappers_never_pick_the_same_port() -> None:
    first = claim_free_port(Random(7))
    second = claim_free_port(Random(7))
    assert first.port != second.port
    first.release()
    second.release()
