"""httpx: a request for `http://orders/path` goes to a live instance of the service orders.

    async with adsum.Client() as client, AsyncHttpxClient(client) as http:
        await http.get("http://orders/path", extensions={"adsum": {"deadline": 2.0, "hash_key": "user-7"}})

A service is a host of one label without a port; every other URL goes to the inner transport unchanged. Path, query and
headers stay as they are. `Host` is the service's name (or what you set), so virtual hosts, redirects and cookies refer
to the service, whichever instance answers. The scheme is the instance's.
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
from adsum.client.calls.failures import FailureKind
from adsum.client.client import Client as DiscoveryClient
from adsum.client.sync import SyncChannel, SyncClient
from adsum.integrations.exchange import Exchange, ExchangeChannel, has_no_view, shorter, wait_for_first_view
from adsum.integrations.request_options import current_options
from adsum.integrations.request_options import request_options as request_options
from adsum.integrations.service_channels import IntegrationOptions, ServiceChannels

HashKey = Callable[[httpx.Request], bytes | str | None]

OPTIONS_EXTENSION: Final = "adsum"
"""The extension of a request that holds its options (`RequestOptions`)."""


class HttpxCallFailed(failures.CallFailed, httpx.TransportError):
    """No try got a response. `tries` says why each one failed."""


class HttpxUnreachable(HttpxCallFailed, httpx.ConnectError):
    """No instance could be reached."""


class HttpxConnectionBroken(HttpxCallFailed, httpx.ReadError):
    """The connection broke after sending, and sending again was not safe or did not help."""


class HttpxTimedOut(HttpxCallFailed, httpx.ReadTimeout):
    """No answer in time."""


class HttpxNoEndpoint(NoEndpoint, httpx.ConnectError):
    """There is no instance to call; the message says why."""


ERRORS: Final[Mapping[FailureKind, type[HttpxCallFailed]]] = {
    FailureKind.CONNECT: HttpxUnreachable,
    FailureKind.UNSENT: HttpxUnreachable,
    FailureKind.STATUS: HttpxUnreachable,
    FailureKind.BROKEN: HttpxConnectionBroken,
    FailureKind.TIMEOUT: HttpxTimedOut,
}
_KINDS: Final[Mapping[type[Exception], FailureKind]] = {
    httpx.ConnectError: FailureKind.CONNECT,
    httpx.ConnectTimeout: FailureKind.CONNECT,
    httpx.PoolTimeout: FailureKind.UNSENT,
    httpx.TimeoutException: FailureKind.TIMEOUT,
    httpx.NetworkError: FailureKind.BROKEN,
    httpx.RemoteProtocolError: FailureKind.BROKEN,
}
"""The kind of failure of each error; the first class that fits counts. Other errors are not the endpoint's fault."""
_FAILURES: Final[tuple[type[Exception], ...]] = tuple(_KINDS)
_FAILURES_OR_TIMEOUT: Final[tuple[type[Exception], ...]] = (*_FAILURES, TimeoutError)
_PHASES: Final = {"pool": FailureKind.UNSENT, "connect": FailureKind.CONNECT}
"""The kind of failure of a timeout in the phases of httpx before anything is sent."""


class AsyncAdsumTransport(httpx.AsyncBaseTransport):
    """Sends requests for a service to a live instance of it, over the transport `inner`.

    It closes `inner`, but not `client`. `hash_key` returns the key for hash policies, unless the request's options set
    one. Also takes `IntegrationOptions`.
    """

    def __init__(
        self,
        client: DiscoveryClient,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        hash_key: HashKey | None = None,
        **options: Unpack[IntegrationOptions],
    ) -> None:
        self._services: ServiceChannels[Channel] = ServiceChannels(client.on_demand_channel, options)
        self._inner = inner or httpx.AsyncHTTPTransport()
        self._hash_key = hash_key

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `CallFailed`, `HttpxNoEndpoint`, `Invalid` for wrong request options, and what `inner` raises."""
        service = self._services.service(request.url.scheme, request.url.host, request.url.port)
        if service is None:
            return await self._inner.handle_async_request(request)
        try:
            channel = self._services.channel(service)
            exchange = _exchange(channel, request, self._hash_key)
            if has_no_view(channel.resolver.view):
                await wait_for_first_view(channel, exchange.first_view_timeout(self._services.ready_timeout))
            return await self._send(request, exchange)
        except NoEndpoint as error:
            raise HttpxNoEndpoint(str(error)) from None

    async def _send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    await asyncio.sleep(attempt.pause)
                timeouts = _Timeouts(request, exchange.call.now, attempt.timeout)
                directed = _directed(request, attempt, self._services, timeouts)
                try:
                    async with asyncio.timeout(attempt.timeout):
                        response = await self._inner.handle_async_request(directed)
                except _FAILURES_OR_TIMEOUT as error:
                    exchange.record_failure(attempt, _kind(error, timeouts), error)
                    continue
            if exchange.should_retry(attempt, response.status_code):
                await response.aclose()
                continue
            timeouts.limit(exchange.call.time_left)
            response.stream = _AsyncBody(cast("httpx.AsyncByteStream", response.stream), exchange, attempt)
            return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class AdsumTransport(httpx.BaseTransport):
    """Like `AsyncAdsumTransport`, for `httpx.Client`. Thread-safe.

    A thread that waits for the network can't be interrupted. So each wait is limited to what is left of the try when it
    begins, and the deadline is checked after each part of the body.
    """

    def __init__(
        self,
        client: SyncClient,
        inner: httpx.BaseTransport | None = None,
        *,
        hash_key: HashKey | None = None,
        **options: Unpack[IntegrationOptions],
    ) -> None:
        self._client = client
        self._services: ServiceChannels[SyncChannel] = ServiceChannels(client.on_demand_channel, options)
        self._inner = inner or httpx.HTTPTransport()
        self._hash_key = hash_key

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `CallFailed`, `HttpxNoEndpoint`, `Invalid` for wrong request options, and what `inner` raises."""
        service = self._services.service(request.url.scheme, request.url.host, request.url.port)
        if service is None:
            return self._inner.handle_request(request)
        try:
            channel = self._services.channel(service)
            exchange = _exchange(channel, request, self._hash_key)
            if has_no_view(channel.view):
                async_channel, timeout = channel.open(), exchange.first_view_timeout(self._services.ready_timeout)
                self._client.run(lambda _: wait_for_first_view(async_channel, timeout))
            return self._send(request, exchange)
        except NoEndpoint as error:
            raise HttpxNoEndpoint(str(error)) from None

    def _send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    time.sleep(attempt.pause)
                timeouts = _Timeouts(request, exchange.call.now, attempt.timeout)
                directed = _directed(request, attempt, self._services, timeouts)
                try:
                    response = self._inner.handle_request(directed)
                except _FAILURES as error:
                    exchange.record_failure(attempt, _kind(error, timeouts), error)
                    continue
            if exchange.should_retry(attempt, response.status_code):
                response.close()
                continue
            timeouts.limit(exchange.call.time_left)
            response.stream = _Body(cast("httpx.SyncByteStream", response.stream), exchange, attempt)
            return response

    def close(self) -> None:
        self._inner.close()


class AsyncHttpxClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` in which services are hosts. Takes its options and those of `AsyncAdsumTransport`."""

    def __init__(self, client: DiscoveryClient, **options: Any) -> None:
        adsum, transport, client_options = _split_options(options)
        super().__init__(
            transport=AsyncAdsumTransport(client, httpx.AsyncHTTPTransport(**transport), **adsum), **client_options
        )


class HttpxClient(httpx.Client):
    """An `httpx.Client` in which services are hosts. Takes its options and those of `AdsumTransport`."""

    def __init__(self, client: SyncClient, **options: Any) -> None:
        adsum, transport, client_options = _split_options(options)
        super().__init__(transport=AdsumTransport(client, httpx.HTTPTransport(**transport), **adsum), **client_options)


class _Timeouts(Mapping[str, float | None]):
    """The timeouts of one try.

    httpx reads the timeout of a phase when the phase begins, and so gets what is left by then.
    """

    def __init__(self, request: httpx.Request, now: Callable[[], float], length: float | None) -> None:
        self.phase = ""
        """The phase that began last."""
        self._given: Mapping[str, float | None] = request.extensions.get("timeout", {})
        self._now = now
        self.limit(length)

    def limit(self, length: float | None) -> None:
        """Limits the time from now on to `length` seconds; None removes the limit."""
        self._deadline = None if length is None else self._now() + length

    def __getitem__(self, phase: str) -> float | None:
        self.phase = phase
        remaining = None if self._deadline is None else max(0.0, self._deadline - self._now())
        return shorter(self._given.get(phase), remaining)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "read", "write", "pool"))

    def __len__(self) -> int:
        return 4


class _AsyncBody(httpx.AsyncByteStream):
    """The body of the final response. The try ends with it, as a failure if it breaks off."""

    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange, attempt: Try) -> None:
        self._inner = inner
        self._exchange = exchange
        self._attempt = attempt

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._inner)
        try:
            while True:
                async with asyncio.timeout(self._exchange.call.time_left):
                    part = await anext(parts)
                yield part
        except StopAsyncIteration:
            self._attempt.finish()
        except (httpx.TransportError, TimeoutError) as error:
            self._attempt.finish(ok=False)
            if self._exchange.is_overdue or isinstance(error, TimeoutError):
                raise self._exchange.deadline_error(self._attempt) from error
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
    """Like `_AsyncBody`, for threads."""

    def __init__(self, inner: httpx.SyncByteStream, exchange: Exchange, attempt: Try) -> None:
        self._inner = inner
        self._exchange = exchange
        self._attempt = attempt

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._inner:
                if self._exchange.is_overdue:
                    self._attempt.abandon()  # The caller may have been slow, so the endpoint is not blamed.
                    raise self._exchange.deadline_error(self._attempt)
                yield part
        except HttpxCallFailed:
            raise
        except httpx.TransportError as error:
            self._attempt.finish(ok=False)
            if self._exchange.is_overdue:
                raise self._exchange.deadline_error(self._attempt) from error
            raise
        self._attempt.finish()

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._attempt.finish()


def _exchange(channel: ExchangeChannel, request: httpx.Request, hash_key: HashKey | None) -> Exchange:
    options = current_options(request.extensions.get(OPTIONS_EXTENSION))
    if options.hash_key is None and hash_key is not None:
        options = options.merged({"hash_key": hash_key(request)})
    return Exchange(
        channel,
        request.method,
        request.url.scheme,
        replayable=isinstance(request.stream, httpx.ByteStream),
        request_options=options,
        errors=ERRORS,
    )


def _directed(
    request: httpx.Request, attempt: Try, services: ServiceChannels[Any], timeouts: _Timeouts
) -> httpx.Request:
    """Returns the request as it goes to the endpoint of a try."""
    endpoint = attempt.endpoint
    extensions: dict[str, Any] = {**request.extensions, "timeout": timeouts}
    if endpoint.instance.scheme == "https":
        extensions.setdefault("sni_hostname", services.server_name(endpoint))
    url = request.url.copy_with(scheme=endpoint.instance.scheme, host=endpoint.address, port=endpoint.port)
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


def _kind(error: Exception, timeouts: _Timeouts) -> FailureKind:
    """Returns how a try failed. One of our own timeouts counts by the phase in which it came."""
    if isinstance(error, TimeoutError):
        return _PHASES.get(timeouts.phase, FailureKind.TIMEOUT)
    return next(kind for error_type, kind in _KINDS.items() if isinstance(error, error_type))


def _split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns the options of our transport, of the inner transport, and of the client."""
    if options.keys() & {"transport", "proxy", "mounts"}:
        raise TypeError(
            "`transport`, `proxy` and `mounts` can't be given here: make your own httpx client with AdsumTransport"
        )
    adsum = {"hash_key", *IntegrationOptions.__annotations__}
    transport = {"verify", "cert", "http1", "http2", "limits", "trust_env"}
    shared = {name: value for name, value in options.items() if name == "trust_env"}
    return (
        {name: value for name, value in options.items() if name in adsum},
        {name: value for name, value in options.items() if name in transport},
        {name: value for name, value in options.items() if name not in adsum and name not in transport} | shared,
    )
