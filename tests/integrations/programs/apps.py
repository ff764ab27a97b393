"""Apps that test servers load by name. Each responds with the id of its process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import flask

from adsum.integrations import asgi, wsgi

Message = MutableMapping[str, Any]


async def _plain(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(0.01)
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


plain = asgi.registered(_plain, "orders", check="http:/health?interval=1s")

flask_app = flask.Flask(__name__)


@flask_app.get("/")
@flask_app.get("/health")
def answer() -> str:
    time.sleep(0.01)
    return str(os.getpid())


def simple(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


def make_simple() -> wsgi.WSGIApp:
    """For servers that call a factory when they load the app."""
    return wsgi.registered(simple, "orders", ttl=3.0)
