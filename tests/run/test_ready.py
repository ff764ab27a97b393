"""Whether a program answers, as it is asked before it is listed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from adsum.client.checks import parse
from adsum.run.port import claim_free_port, taken
from adsum.run.ready import answers


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """Answers 200 to /ok, 503 to /no, and nonsense to /odd."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(4_096)
        lines = {b"/ok": b"HTTP/1.1 200 OK\r\n\r\n", b"/no": b"HTTP/1.1 503 No\r\n\r\n", b"/odd": b"hello\n"}
        if head:
            writer.write(lines[head.split(b" ")[1]])
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
async def test_a_check_is_asked_as_the_registry_would(server: int, check: str, passes: bool) -> None:
    assert await answers(parse(check), "127.0.0.1", server) is passes


async def test_nobody_answers_at_a_port_that_is_free() -> None:
    claim = claim_free_port(Random())
    assert not taken(claim.port)
    assert not await answers(parse("tcp"), "127.0.0.1", claim.port)
    claim.release()


def test_two_wrappers_never_choose_the_same_port() -> None:
    first = claim_free_port(Random(7))
    second = claim_free_port(Random(7))
    assert first.port != second.port
    first.release()
    second.release()
