"""aiohttp (3.12 or later): a request for `http://orders/path` goes to a live instance of the service orders.

    async with adsum.Client() as client, session(client) as http:
        with request_options(deadline=2.0):
            async with http.get("http://orders/path") as response: …

For a session of your own, use `aiohttp.ClientSession(middlewares=[AdsumMiddleware(client)])`. Make it the last
middleware, so that the others see each request once. A service is a host of one label without a port; aiohttp handles
every other URL. Path, query and headers stay as they are. `Host` is the service's name (or what you set), so virtual
hosts, redirects and cookies refer to the service, whichever instance answers. The scheme is the instance's. Requests to
instances use no proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Unpack, cast

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.payload import BytesPayload

from adsum.balance.picker import NoEndpoint
from adsum.client.calls import failures
from adsum.client.calls.call import Try
from adsum.client.calls.channel import Channel
from adsum.client.calls.failures import FailureKind
from adsum.client.client import Client
from adsum.integrations.exchange import Exchange, has_no_view, wait_for_first_view
from adsum.integrations.request_options import current_options
from adsum.integrations.request_options import request_options as request_options
from adsum.integrations.service_channels import IntegrationOptions, ServiceChannels

HashKey = Callable[[ClientRequest], bytes | str | None]


class AiohttpCallFailed(failures.CallFailed, aiohttp.ClientConnectionError):
    """No try got a response. `tries` says why each one failed."""


class AiohttpUnreachable(AiohttpCallFailed):
    """No instance could be reached."""


class AiohttpConnectionBroken(AiohttpCallFailed):
    """The connection broke after sending, and sending again was not safe or did not help."""


class AiohttpTimedOut(AiohttpCallFailed, aiohttp.ServerTimeoutError):
    """No answer in time."""


class AiohttpNoEndpoint(NoEndpoint, aiohttp.ClientConnectionError):
    """There is no instance to call; the message says why."""


ERRORS: Final[Mapping[FailureKind, type[AiohttpCallFailed]]] = {
    FailureKind.CONNECT: AiohttpUnreachable,
    FailureKind.UNSENT: AiohttpUnreachable,
    FailureKind.STATUS: AiohttpUnreachable,
    FailureKind.BROKEN: AiohttpConnectionBroken,
    FailureKind.TIMEOUT: AiohttpTimedOut,
}
_KINDS: Final[Mapping[type[Exception], FailureKind]] = {
    aiohttp.ClientConnectorError: FailureKind.CONNECT,
    aiohttp.ClientConnectorCertificateError: FailureKind.CONNECT,
    aiohttp.ServerFingerprintMismatch: FailureKind.CONNECT,
    aiohttp.ConnectionTimeoutError: FailureKind.CONNECT,
    TimeoutError: FailureKind.TIMEOUT,
    aiohttp.ClientConnectionError: FailureKind.BROKEN,
    aiohttp.ClientResponseError: FailureKind.BROKEN,
    aiohttp.ClientPayloadError: FailureKind.BROKEN,
    OSError: FailureKind.BROKEN,
}
"""The kind of failure of each error; the first class that fits counts. Other errors are not the endpoint's fault."""
_FAILURES: Final[tuple[type[Exception], ...]] = tuple(_KINDS)


class AdsumMiddleware:
    """Sends requests for a service to a live instance of it.

    `hash_key` returns the key for hash policies, unless `request_options` sets one. Also takes `IntegrationOptions`.
    """

    def __init__(
        self, client: Client, *, hash_key: HashKey | None = None, **options: Unpack[IntegrationOptions]
    ) -> None:
        self._services: ServiceChannels[Channel] = ServiceChannels(client.on_demand_channel, options)
        self._hash_key = hash_key

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Raises `CallFailed`, `AiohttpNoEndpoint`, `Invalid` for wrong request options, and what aiohttp raises."""
        url = request.url
        service = self._services.service(url.scheme, url.host or "", url.explicit_port)
        if service is None:
            return await send(request)
        try:
            channel = self._services.channel(service)
            exchange = self._exchange(channel, request)
            if has_no_view(channel.resolver.view):
                await wait_for_first_view(channel, exchange.first_view_timeout(self._services.ready_timeout))
            return await self._send(request, send, exchange)
        except NoEndpoint as error:
            raise AiohttpNoEndpoint(str(error)) from None
        finally:
            request.url = url

    def _exchange(self, channel: Channel, request: ClientRequest) -> Exchange:
        options = current_options()
        if options.hash_key is None and self._hash_key is not None:
            options = options.merged({"hash_key": self._hash_key(request)})
        return Exchange(
            channel,
            request.method,
            request.url.scheme,
            replayable=isinstance(request.body, bytes | BytesPayload),
            request_options=options,
            errors=ERRORS,
        )

    async def _send(self, request: ClientRequest, send: ClientHandlerType, exchange: Exchange) -> ClientResponse:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    await asyncio.sleep(attempt.pause)
                await self._set_endpoint(request, attempt)
                try:
                    async with asyncio.timeout(attempt.timeout) as timeout:
                        response = await send(request)
                except _FAILURES as error:
                    exchange.record_failure(attempt, _kind(error, request), error)
                    if type(error) is TimeoutError and not timeout.expired():
                        raise  # The session's total timeout is over.
                    continue
            if exchange.should_retry(attempt, response.status):
                response.close()
                continue
            _finish_with_body(response, exchange, attempt)
            return response

    async def _set_endpoint(self, request: ClientRequest, attempt: Try) -> None:
        """Points the request at the endpoint of this try."""
        await request.close()  # Wait until the body of the last try, now cancelled, has stopped being written.
        endpoint = attempt.endpoint
        request.url = (
            request.url.with_scheme(endpoint.instance.scheme).with_host(endpoint.address).with_port(endpoint.port)
        )
        request.proxy = request.proxy_auth = request.proxy_headers = None
        request.response = None
        if request.is_ssl():
            request.server_hostname = self._services.server_name(endpoint)


def session(client: Client, *, hash_key: HashKey | None = None, **options: Any) -> aiohttp.ClientSession:
    """Returns an `aiohttp.ClientSession` in which services are hosts. Takes its options and `AdsumMiddleware`'s."""
    integration_options = {name: options.pop(name) for name in IntegrationOptions.__annotations__ if name in options}
    middleware = AdsumMiddleware(client, hash_key=hash_key, **cast("IntegrationOptions", integration_options))
    return aiohttp.ClientSession(middlewares=(*options.pop("middlewares", ()), middleware), **options)


def _finish_with_body(response: ClientResponse, exchange: Exchange, attempt: Try) -> None:
    """Finishes the try when the response body ends, and at the deadline."""
    connection, body = response.connection, response.content
    if connection is None:  # The body came with the head.
        attempt.finish()
        return
    time_left = exchange.call.time_left
    timer: asyncio.TimerHandle | None = None

    def released() -> None:
        if timer is not None:
            timer.cancel()
        error = body.exception()
        # aiohttp reports a response that was closed on our side with this plain class.
        attempt.finish(ok=error is None or type(error) is aiohttp.ClientConnectionError)

    def deadline_passed() -> None:
        body.set_exception(exchange.deadline_error(attempt))
        response.close()

    if time_left is not None:
        timer = asyncio.get_running_loop().call_later(time_left, deadline_passed)
    connection.add_callback(released)


def _kind(error: Exception, request: ClientRequest) -> FailureKind:
    """Returns how a try failed. A timeout before there was a connection counts as a failure to connect."""
    kind = next(kind for error_type, kind in _KINDS.items() if isinstance(error, error_type))
    return FailureKind.CONNECT if kind is FailureKind.TIMEOUT and request.response is None else kind
