"""A registry node that serves TLS with a certificate of a real authority, and knows one token."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from adsum.certificates.authority import Authority
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.core.access.tokens import TokenRole
from tests.client.stub_node import STREAM_HEAD, synced_event, until

DAY = 86_400.0
TOKEN = f"adsum_{'0' * 16}_{'A' * 43}"
OTHER_TOKEN = f"adsum_{'1' * 16}_{'B' * 43}"

Answer = tuple[int, Any]


def server_context(
    authority: Authority, folder: Path, now: float | None = None, host: str = "localhost"
) -> ssl.SSLContext:
    """Returns a server's context with a new certificate of the authority, signed at `now`, for a host and 127.0.0.1."""
    key = new_key()
    request = create_request(key, "node", [host], [ip_address("127.0.0.1")])
    chain = authority.sign(
        request, name="node", token_id="0" * 16, role=TokenRole.NODE, now=time.time() if now is None else now
    )
    (folder / "node.pem").write_bytes(chain + encode_key(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "node.pem")
    return context


class SecureNode:
    """Answers by `answers`: METHOD path → status and JSON. Everything but `open_paths` needs a token of `tokens`."""

    open_paths = ("/api/v1/authority", "/api/v1/join", "/healthz")

    def __init__(self, authority: Authority) -> None:
        self.url = ""
        self.authority = authority
        self.tokens = {TOKEN}
        self.refusal: Answer | None = None
        """The answer to requests with a known token, instead of the usual one."""
        self.answers: dict[str, Callable[[bytes], Answer]] = {
            "GET /api/v1/authority": lambda _: (
                200,
                {"certificate": self.authority.certificate_pem().decode(), "issues": True},
            ),
            "GET /api/v1/services": lambda _: (200, {"epoch": "e1", "revision": 1, "services": []}),
        }
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request, and its Authorization header."""
        self.bodies: list[bytes] = []
        self.hellos = 0
        """Connections that began, whether or not their hand-shake succeeded."""
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._serve(reader, writer)
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = lines[0].split(" ")
        path, authorization = target.partition("?")[0], headers.get("authorization", "")
        self.requests.append((f"{method} {path}", authorization))
        self.bodies.append(body)
        known = authorization.removeprefix("Bearer ") in self.tokens
        if not known and path not in self.open_paths:
            status, answer = 401, problem(401, "this needs a token: it needs the scope read:*")
        elif known and self.refusal is not None:
            status, answer = self.refusal
        elif path == "/api/v1/watch":
            opened = json.dumps({"epoch": "e1", "revision": 1, "full": True, "heartbeat": 3, "watch": "w"})
            writer.write(STREAM_HEAD + f"event: open\ndata: {opened}\n\n".encode() + synced_event(1))
            await writer.drain()
            await reader.read()
            return
        else:
            answer_to = self.answers.get(f"{method} {path}")
            status, answer = answer_to(body) if answer_to is not None else (404, problem(404, "no such path"))
        content = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()


def problem(status: int, detail: str) -> dict[str, Any]:
    """Returns the problem document with which access control refuses a request."""
    reason = {401: "wrong-credentials", 403: "forbidden", 404: "invisible"}.get(status, "")
    return {"title": "X", "status": status, "detail": detail, "reason": reason}


@asynccontextmanager
async def secure_node(
    authority: Authority, folder: Path, context: ssl.SSLContext | None = None
) -> AsyncIterator[SecureNode]:
    """Yields a node on a free port. `context` replaces the one with a good certificate."""
    node = SecureNode(authority)
    chosen = context or server_context(authority, folder)
    hello = chosen.sni_callback

    def count(*_: object) -> None:
        node.hellos += 1

    chosen.sni_callback = count
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0, ssl=chosen)
    node.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        chosen.sni_callback = hello
        server.close()
        await until(lambda: not node.open)
