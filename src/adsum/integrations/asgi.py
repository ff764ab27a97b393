"""Any ASGI app (FastAPI, Starlette, …): listed while it is served, drained before the server stops accepting.

    app = registered(app, service="orders", check="http:/health")           # around any app, or:
    app = FastAPI(lifespan=lifespan("orders", check="http:/health"))

It is listed after the app's own start-up, once the server listens; one instance per listening socket, however many
workers serve it. The server tells the app of its end only when it accepts no more, which is too late to drain; so the
signals in `drain_on` are heard first: drain, then the server's own ending. No request is lost.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final, TypeVar

from adsum.client.client import Client
from adsum.client.registration.signal_interceptor import SignalInterceptor
from adsum.core.errors import AdsumError
from adsum.integrations.socket_registration import SocketRegistration

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
A = TypeVar("A")

DRAIN_ON: Final = (signal.SIGTERM,)
"""What tells a server to end in earnest. Ctrl-C is for people who don't want to wait."""

_log = logging.getLogger(__name__)


def registered(
    app: App,
    service: str,
    port: int | None = None,
    *,
    client: Client | None = None,
    drain_on: Iterable[int] = DRAIN_ON,
    **options: Any,
) -> App:
    """The app, listed as an instance of `service` while it is served.

    `port` None: the one that the server listens on. `options` are those of `Client.register`. Without `client` one of
    its own asks the registry that `ADSUM_URL` names. An app without a lifespan of its own is given one.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(app, _Stay(service, port, client, drain_on, options)).run(scope, receive, send)
        else:
            await app(scope, receive, send)

    return served


def lifespan(
    service: str,
    port: int | None = None,
    *,
    inner: Callable[[A], AbstractAsyncContextManager[Any]] | None = None,
    client: Client | None = None,
    drain_on: Iterable[int] = DRAIN_ON,
    **options: Any,
) -> Callable[[A], AbstractAsyncContextManager[Any]]:
    """A lifespan for Starlette and FastAPI, around `inner`, the app's own: as `registered` does it."""

    @asynccontextmanager
    async def around(app: A) -> AsyncGenerator[Any, None]:
        stay = _Stay(service, port, client, drain_on, options)
        async with inner(app) if inner is not None else nullcontext() as state:
            await stay.begin()
            try:
                yield state
            finally:
                await stay.end()

    return around


class _Stay:
    """One run of a server."""

    def __init__(
        self, service: str, port: int | None, client: Client | None, drain_on: Iterable[int], options: dict[str, Any]
    ) -> None:
        self._attendance = SocketRegistration(service, port, **options)
        self._client = client
        self._own: Client | None = None
        self._before = SignalInterceptor(drain_on, self._part_first)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._parting: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Raises `Invalid`."""
        if self._client is None:
            self._own = Client()
        self._loop = asyncio.get_running_loop()
        try:
            self._attendance.start(self._client or self._own or Client())
        except BaseException:
            await self._close()
            raise
        handler = signal.getsignal(signal.SIGTERM)
        if not self._before.install():
            _log.debug("no signal can be heard here: callers are told only when the server has stopped")
        if _was_told(handler):
            self._attendance.mark_stopping()

    async def end(self) -> None:
        """Idempotent."""
        await self._attendance.stop()
        self._before.remove()  # Only now: a server that stops may tell us while we end.
        await self._close()

    async def _close(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    def _part_first(self, resume: Callable[[], None], final: bool) -> None:
        """Called in a signal: the rest on the loop."""
        self._attendance.mark_stopping()
        if self._loop is None or self._loop.is_closed():
            resume()
            return

        async def part() -> None:
            try:
                await self._attendance.drain()
                if final:
                    await self._attendance.stop()
            finally:
                resume()

        def go() -> None:
            self._parting = asyncio.ensure_future(part())

        self._loop.call_soon_threadsafe(go)


def _was_told(handler: object) -> bool:
    """Whether a signal told the server to stop before we could hear it, which uvicorn, whose handler this is, knows."""
    return bool(getattr(getattr(handler, "__self__", None), "should_exit", False))


class _Lifespan:
    """The app's lifespan, heard on its way between the server and the app."""

    def __init__(self, app: App, stay: _Stay) -> None:
        self._app = app
        self._stay = stay
        self._spoken = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._stay.end()
            return message

        async def sending(message: Message) -> None:
            self._spoken = True
            if message["type"] == "lifespan.startup.complete":
                await self._begin(send)
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception as error:
            if self._spoken:
                raise
            _log.debug("the app has no lifespan: %s", error)
        finally:
            if self._spoken:
                await self._stay.end()
        if not self._spoken:
            await self._in_its_stead(receive, send)

    async def _begin(self, send: Send) -> None:
        try:
            await self._stay.begin()
        except AdsumError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise

    async def _in_its_stead(self, receive: Receive, send: Send) -> None:
        await self._begin(send)
        try:
            await send({"type": "lifespan.startup.complete"})
            while (await receive())["type"] != "lifespan.shutdown":
                pass
        finally:
            await self._stay.end()
        await send({"type": "lifespan.shutdown.complete"})
