"""Registers any ASGI app (FastAPI, Starlette, …) while it is served, and drains it before the server stops accepting.

    app = registered(app, service="orders", check="http:/health")           # around any app, or:
    app = FastAPI(lifespan=lifespan("orders", check="http:/health"))

The instance is registered after the app's own startup, once the server listens. A listening socket is one instance,
however many workers serve it. A server ends its app's lifespan only when it no longer accepts requests, which is too
late to drain. So the signals in `drain_on` are handled here first: the instance drains, then the server ends in its own
way. No request is lost.
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
"""Signals that start a drain. Ctrl-C (SIGINT) is not among them, so that it stops a server at once."""

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
    """Returns the app, registered as an instance of `service` while it is served.

    `port` None is the port that the server listens on. `options` are those of `Client.register`. Without `client`, a
    new one connects to the registry at `ADSUM_URL`. An app without a lifespan gets one.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(app, _ServerRun(service, port, client, drain_on, options)).run(scope, receive, send)
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
    """Returns a lifespan for Starlette and FastAPI that works like `registered`, around the app's own, `inner`."""

    @asynccontextmanager
    async def around(app: A) -> AsyncGenerator[Any, None]:
        run = _ServerRun(service, port, client, drain_on, options)
        async with inner(app) if inner is not None else nullcontext() as state:
            await run.begin()
            try:
                yield state
            finally:
                await run.end()

    return around


class _ServerRun:
    """One run of a server: from its startup to its end."""

    def __init__(
        self, service: str, port: int | None, client: Client | None, drain_on: Iterable[int], options: dict[str, Any]
    ) -> None:
        self._registration = SocketRegistration(service, port, **options)
        self._client = client
        self._own_client: Client | None = None
        self._signals = SignalInterceptor(drain_on, self._drain_first)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Starts the registration. Raises `Invalid`."""
        client = self._client
        if client is None:
            client = self._own_client = Client()
        self._loop = asyncio.get_running_loop()
        try:
            self._registration.start(client)
        except BaseException:
            await self._close()
            raise
        handler = signal.getsignal(signal.SIGTERM)
        if not self._signals.install():
            _log.debug(
                "signals can't be handled in this thread: the instance is deregistered once the server has stopped"
            )
        if _is_stopping(handler):
            self._registration.mark_stopping()

    async def end(self) -> None:
        """Ends the registration. Idempotent."""
        await self._registration.stop()
        self._signals.remove()  # Only now: a stop signal may still come while the registration ends.
        await self._close()

    async def _close(self) -> None:
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.close()

    def _drain_first(self, resume: Callable[[], None], final: bool) -> None:
        """Drains before the server handles the signal. Called in a signal handler; the work is done on the loop."""
        self._registration.mark_stopping()
        if self._loop is None or self._loop.is_closed():
            resume()
            return

        async def drain() -> None:
            try:
                await self._registration.drain()
                if final:
                    await self._registration.stop()
            finally:
                resume()

        def start_drain() -> None:
            self._draining = asyncio.ensure_future(drain())

        self._loop.call_soon_threadsafe(start_drain)


def _is_stopping(handler: object) -> bool:
    """Returns whether uvicorn, whose signal handler this is, got its stop signal before we handled signals."""
    return bool(getattr(getattr(handler, "__self__", None), "should_exit", False))


class _Lifespan:
    """Runs the app's lifespan between the server and the app."""

    def __init__(self, app: App, run: _ServerRun) -> None:
        self._app = app
        self._run = run
        self._app_has_lifespan = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._run.end()
            return message

        async def sending(message: Message) -> None:
            self._app_has_lifespan = True
            if message["type"] == "lifespan.startup.complete":
                await self._begin(send)
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception as error:
            if self._app_has_lifespan:
                raise
            _log.debug("the app has no lifespan: %s", error)
        finally:
            if self._app_has_lifespan:
                await self._run.end()
        if not self._app_has_lifespan:
            await self._run_without_app(receive, send)

    async def _begin(self, send: Send) -> None:
        try:
            await self._run.begin()
        except AdsumError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise

    async def _run_without_app(self, receive: Receive, send: Send) -> None:
        await self._begin(send)
        try:
            await send({"type": "lifespan.startup.complete"})
            while (await receive())["type"] != "lifespan.shutdown":
                pass
        finally:
            await self._run.end()
        await send({"type": "lifespan.shutdown.complete"})
