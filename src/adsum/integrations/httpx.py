"""httpx: `http://orders/path` goes to a live instance of orders.

    async with adsum.Client() as client, AsyncClient(client) as http:
        await http.get("http://orders/path", extensions={"adsum": {"deadline": 2.0, "hash_key": "user-7"}})

A service is a host of one label without a port; every other URL goes to the inner transport untouched. Path, query and
headers stay as they are: `Host` is the service's name (or what you set), so that virtual hosts, redirects and cookies
mean the service, whichever instance answers. The scheme is the instance's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, Unpack, cast

import httpx

from adsum.balance.picker import NoEndpoint
from adsum.client.calls import failures
from adsum.client.calls.call import Try
from adsum.client.calls.channel import Channel
from adsum.client.calls.failures import Kind
from adsum.client.client import Client as Discovery
from adsum.client.sync import SyncChannel, SyncClient
from adsum.integrations.exchange import Channels, Exchange, first_word, shorter, unheard_of
from adsum.integrations.request_options import calling as calling
from adsum.integrations.request_options import terms
from adsum.integrations.service_channels import Routes, Routing

HashKey = Callable[[httpx.Request], bytes | str | None]

EXTENSION: Final = "adsum"
"""The extension of a request that holds its terms."""


class CallFailed(failures.CallFailed, httpx.TransportError):
    """No try got an answer; `tries` says of each why."""


class Unreached(CallFailed, httpx.ConnectError):
    """No instance could be reached."""


class Broken(CallFailed, httpx.ReadError):
    """The connection broke after sending, and sending again was not safe or did not help."""


class TimedOut(CallFailed, httpx.ReadTimeout):
    """No answer in time."""


class Nobody(NoEndpoint, httpx.ConnectError):
    """There is no instance to call; the words say why."""


ERRORS: Final[Mapping[Kind, type[CallFailed]]] = {
    Kind.CONNECT: Unreached,
    Kind.UNSENT: Unreached,
    Kind.STATUS: Unreached,
    Kind.BROKEN: Broken,
    Kind.TIMEOUT: TimedOut,
}
_KINDS: Final[Mapping[type[Exception], Kind]] = {
    httpx.ConnectError: Kind.CONNECT,
    httpx.ConnectTimeout: Kind.CONNECT,
    httpx.PoolTimeout: Kind.UNSENT,
    httpx.TimeoutException: Kind.TIMEOUT,
    httpx.NetworkError: Kind.BROKEN,
    httpx.RemoteProtocolError: Kind.BROKEN,
}
"""How a try failed, by the first class that fits. Errors that are not in here are not the endpoint's."""
_FAILURES: Final[tuple[type[Exception], ...]] = tuple(_KINDS)
_FAILURES_OR_LATE: Final[tuple[type[Exception], ...]] = (*_FAILURES, TimeoutError)
_PHASES: Final = {"pool": Kind.UNSENT, "connect": Kind.CONNECT}
"""What running out of time means in the phases of httpx in which nothing has been sent."""


class AsyncAdsumTransport(httpx.AsyncBaseTransport):
    """Sends what is for a service to a live instance of it, over `inner`, which it closes; the client it does not.

    `hash_key` says what hash policies choose by, unless the request's terms do. Takes the options of `Routing`.
    """

    def __init__(
        self,
        client: Discovery,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        hash_key: HashKey | None = None,
        **routing: Unpack[Routing],
    ) -> None:
        self._routes: Routes[Channel] = Routes(client.requested_channel, routing)
        self._inner = inner or httpx.AsyncHTTPTransport()
        self._hash_key = hash_key

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `CallFailed`, `Nobody`, `Invalid` for terms that are none, and what `inner` raises."""
        service = self._routes.service(request.url.scheme, request.url.host, request.url.port)
        if service is None:
            return await self._inner.handle_async_request(request)
        try:
            channel = self._routes.channel(service)
            exchange = _exchange(channel, request, self._hash_key)
            if unheard_of(channel.resolver.view):
                await first_word(channel, exchange.patience(self._routes.ready))
            return await self._send(request, exchange)
        except NoEndpoint as nobody:
            raise Nobody(str(nobody)) from None

    async def _send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    await asyncio.sleep(attempt.pause)
                timeouts = _Timeouts(request, exchange.call.now, attempt.timeout)
                there = _there(request, attempt, self._routes, timeouts)
                try:
                    async with asyncio.timeout(attempt.timeout):
                        response = await self._inner.handle_async_request(there)
                except _FAILURES_OR_LATE as error:
                    exchange.failed(attempt, _kind(error, timeouts), error)
                    continue
            if exchange.answered(attempt, response.status_code):
                await response.aclose()
                continue
            timeouts.left(exchange.call.left)
            response.stream = _AsyncBody(cast("httpx.AsyncByteStream", response.stream), exchange, attempt)
            return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class AdsumTransport(httpx.BaseTransport):
    """As `AsyncAdsumTransport`, for `httpx.Client` and any number of threads.

    Waiting for the network can't be interrupted in a thread: each wait is bounded by what is left of the try when it
    begins, and the deadline is looked at after each part of the body.
    """

    def __init__(
        self,
        client: SyncClient,
        inner: httpx.BaseTransport | None = None,
        *,
        hash_key: HashKey | None = None,
        **routing: Unpack[Routing],
    ) -> None:
        self._client = client
        self._routes: Routes[SyncChannel] = Routes(client.requested_channel, routing)
        self._inner = inner or httpx.HTTPTransport()
        self._hash_key = hash_key

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `CallFailed`, `Nobody`, `Invalid` for terms that are none, and what `inner` raises."""
        service = self._routes.service(request.url.scheme, request.url.host, request.url.port)
        if service is None:
            return self._inner.handle_request(request)
        try:
            channel = self._routes.channel(service)
            exchange = _exchange(channel, request, self._hash_key)
            if unheard_of(channel.view):
                opened, patience = channel.open(), exchange.patience(self._routes.ready)
                self._client.run(lambda _: first_word(opened, patience))
            return self._send(request, exchange)
        except NoEndpoint as nobody:
            raise Nobody(str(nobody)) from None

    def _send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    time.sleep(attempt.pause)
                timeouts = _Timeouts(request, exchange.call.now, attempt.timeout)
                there = _there(request, attempt, self._routes, timeouts)
                try:
                    response = self._inner.handle_request(there)
                except _FAILURES as error:
                    exchange.failed(attempt, _kind(error, timeouts), error)
                    continue
            if exchange.answered(attempt, response.status_code):
                response.close()
                continue
            timeouts.left(exchange.call.left)
            response.stream = _Body(cast("httpx.SyncByteStream", response.stream), exchange, attempt)
            return response

    def close(self) -> None:
        self._inner.close()


class AsyncClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` for which services are hosts; takes its options and those of `AsyncAdsumTransport`."""

    def __init__(self, client: Discovery, **options: Any) -> None:
        ours, inner, own = _sorted(options)
        super().__init__(transport=AsyncAdsumTransport(client, httpx.AsyncHTTPTransport(**inner), **ours), **own)


class Client(httpx.Client):
    """An `httpx.Client` for which services are hosts; takes its options and those of `AdsumTransport`."""

    def __init__(self, client: SyncClient, **options: Any) -> None:
        ours, inner, own = _sorted(options)
        super().__init__(transport=AdsumTransport(client, httpx.HTTPTransport(**inner), **ours), **own)


class _Timeouts(Mapping[str, float | None]):
    """The time-outs of one try: httpx asks for that of a phase when the phase begins, and is told what is left then."""

    def __init__(self, request: httpx.Request, now: Callable[[], float], length: float | None) -> None:
        self.phase = ""
        """The phase that began last."""
        self._given: Mapping[str, float | None] = request.extensions.get("timeout", {})
        self._now = now
        self.left(length)

    def left(self, length: float | None) -> None:
        """From now on there are `length` seconds; None: as many as were given."""
        self._deadline = None if length is None else self._now() + length

    def __getitem__(self, phase: str) -> float | None:
        self.phase = phase
        left = None if self._deadline is None else max(0.0, self._deadline - self._now())
        return shorter(self._given.get(phase), left)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "read", "write", "pool"))

    def __len__(self) -> int:
        return 4


class _AsyncBody(httpx.AsyncByteStream):
    """The body of an answer that stands; how it ends is how the try ends."""

    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange, attempt: Try) -> None:
        self._inner = inner
        self._exchange = exchange
        self._attempt = attempt

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._inner)
        try:
            while True:
                async with asyncio.timeout(self._exchange.call.left):
                    part = await anext(parts)
                yield part
        except StopAsyncIteration:
            self._attempt.finish()
        except (httpx.TransportError, TimeoutError) as error:
            self._attempt.finish(ok=False)
            if self._exchange.over or isinstance(error, TimeoutError):
                raise self._exchange.overdue(self._attempt) from error
            raise
        except asyncio.CancelledError:
            self._attempt.abandon()
            raise

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._attempt.finish()


class _Body(httpx.SyncByteStream):
    """As `_AsyncBody`."""

    def __init__(self, inner: httpx.SyncByteStream, exchange: Exchange, attempt: Try) -> None:
        self._inner = inner
        self._exchange = exchange
        self._attempt = attempt

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._inner:
                if self._exchange.over:
                    self._attempt.abandon()  # Perhaps it is us who were slow.
                    raise self._exchange.overdue(self._attempt)
                yield part
        except CallFailed:
            raise
        except httpx.TransportError as error:
            self._attempt.finish(ok=False)
            if self._exchange.over:
                raise self._exchange.overdue(self._attempt) from error
            raise
        self._attempt.finish()

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._attempt.finish()


def _exchange(channel: Channels, request: httpx.Request, hash_key: HashKey | None) -> Exchange:
    agreed = terms(request.extensions.get(EXTENSION))
    if agreed.hash_key is None and hash_key is not None:
        agreed = agreed.but({"hash_key": hash_key(request)})
    return Exchange(
        channel,
        request.method,
        request.url.scheme,
        replayable=isinstance(request.stream, httpx.ByteStream),
        terms=agreed,
        errors=ERRORS,
    )


def _there(request: httpx.Request, attempt: Try, routes: Routes[Any], timeouts: _Timeouts) -> httpx.Request:
    """The request as it goes to the endpoint of a try."""
    endpoint = attempt.endpoint
    extensions: dict[str, Any] = {**request.extensions, "timeout": timeouts}
    if endpoint.instance.scheme == "https":
        extensions.setdefault("sni_hostname", routes.server_name(endpoint))
    url = request.url.copy_with(scheme=endpoint.instance.scheme, host=endpoint.address, port=endpoint.port)
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


def _kind(error: Exception, timeouts: _Timeouts) -> Kind:
    """How a try failed; a time-out that is ours by the phase it came in."""
    if isinstance(error, TimeoutError):
        return _PHASES.get(timeouts.phase, Kind.TIMEOUT)
    return next(kind for each, kind in _KINDS.items() if isinstance(error, each))


def _sorted(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The options of our transport, of the inner one, and of the client."""
    if options.keys() & {"transport", "proxy", "mounts"}:
        raise TypeError("give `transport`, `proxy` and `mounts` to httpx itself, with a transport of this module")
    ours = {"hash_key", *Routing.__annotations__}
    inner = {"verify", "cert", "http1", "http2", "limits", "trust_env"}
    both = {name: value for name, value in options.items() if name == "trust_env"}
    return (
        {name: value for name, value in options.items() if name in ours},
        {name: value for name, value in options.items() if name in inner},
        {name: value for name, value in options.items() if name not in ours and name not in inner} | both,
    )
