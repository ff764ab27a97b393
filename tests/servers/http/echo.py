"""An application of tests that echoes requests, and requests to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adsum.ports import SEND_RESPONSE

BLOCK = b"host: localhost\r\ncontent-length: 3\r\n\r\n"
KNOWN = b"PUT /known HTTP/1.1\r\n" + BLOCK + b"abc"
NOW = b"PUT /now HTTP/1.1\r\n" + BLOCK + b"abc"


def encoded(target: bytes, body: bytes) -> bytes:
    """Returns the response of the application, without the status line."""
    text = target + b" " + body
    return b"content-length: %d\r\n\r\n%b" % (len(text), text)


def whole(target: bytes, body: bytes = b"abc") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + encoded(target, body)


async def echo_app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Responds with the target and the body of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    if scope["state"][SEND_RESPONSE](200, encoded(target, body)):
        return
    head, _, text = encoded(target, body).partition(b"\r\n\r\n")
    name, _, length = head.partition(b": ")
    await send({"type": "http.response.start", "status": 200, "headers": [(name, length)]})
    await send({"type": "http.response.body", "body": text})
