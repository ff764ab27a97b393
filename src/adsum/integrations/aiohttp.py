"""aiohttp (3.12 or later): `http://orders/path` goes to a live instance of orders.

    async with adsum.Client() as client, session(client) as http:
        with calling(deadline=2.0):
            async with http.get("http://orders/path") as answer: …

Or, in a session of your own: `aiohttp.ClientSession(middlewares=[AdsumMiddleware(client)])`; as the last of several, so
that the others see each request once. A service is a host of one label without a port; every other URL is requested as
ever. Path, query and headers stay as they are: `Host` is the service's name (or what you set), so that virtual hosts,
redirects and cookies mean the service, whichever instance answers. The scheme is the instance's. Instances are reached
directly, whatever proxies there are.
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
    """No try got an answer; `tries` says of each why."""


class AiohttpUnreachable(AiohttpCallFailed):
    """No instance could be reached."""


class AiohttpConnectionBroken(AiohttpCallFailed):
    """The connection broke after sending, and sending again was not safe or did not help."""


class AiohttpTimedOut(AiohttpCallFailed, aiohttp.ServerTimeoutError):
    """No answer in time."""


class AiohttpNoEndpoint(NoEndpoint, aiohttp.ClientConnectionError):
    """There is no instance to call; the words say why."""


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
"""How a try failed, by the first class that fits. Errors that are not in here are not the endpoint's."""
_FAILURES: Final[tuple[type[Exception], ...]] = tuple(_KINDS)


class AdsumMiddleware:
    """Sends what is for a service to a live instance of it.

    `hash_key` says what hash policies choose by, unless `calling` does. Takes the options of `IntegrationOptions`.
    """

    def __init__(
        self, client: Client, *, hash_key: HashKey | None = None, **routing: Unpack[IntegrationOptions]
    ) -> None:
        self._routes: ServiceChannels[Channel] = ServiceChannels(client.on_demand_channel, routing)
        self._hash_key = hash_key

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Raises `AiohttpCallFailed`, `AiohttpNoEndpoint`, `Invalid` for terms that are none, and what aiohttp raises."""
        asked = request.url
        service = self._routes.service(asked.scheme, asked.host or "", asked.explicit_port)
        if service is None:
            return await send(request)
        try:
            channel = self._routes.channel(service)
            exchange = self._exchange(channel, request)
            if has_no_view(channel.resolver.view):
                await wait_for_first_view(channel, exchange.first_view_timeout(self._routes.ready_timeout))
            return await self._send(request, send, exchange)
        except NoEndpoint as nobody:
            raise AiohttpNoEndpoint(str(nobody)) from None
        finally:
            request.url = asked

    def _exchange(self, channel: Channel, request: ClientRequest) -> Exchange:
        agreed = current_options()
        if agreed.hash_key is None and self._hash_key is not None:
            agreed = agreed.merged({"hash_key": self._hash_key(request)})
        return Exchange(
            channel,
            request.method,
            request.url.scheme,
            replayable=isinstance(request.body, bytes | BytesPayload),
            request_options=agreed,
            errors=ERRORS,
        )

    async def _send(self, request: ClientRequest, send: ClientHandlerType, exchange: Exchange) -> ClientResponse:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    await asyncio.sleep(attempt.pause)
                await self._direct(request, attempt)
                try:
                    async with asyncio.timeout(attempt.timeout) as ours:
                        response = await send(request)
                except _FAILURES as error:
                    exchange.record_failure(attempt, _kind(error, request), error)
                    if type(error) is TimeoutError and not ours.expired():
                        raise  # The time of the whole request is over, as the session counts it.
                    continue
            if exchange.should_retry(attempt, response.status):
                response.close()
                continue
            _watch(response, exchange, attempt)
            return response

    async def _direct(self, request: ClientRequest, attempt: Try) -> None:
        """Have the request go to the endpoint of this try."""
        await request.close()  # What was still being written for the last try has been cancelled; see it end.
        endpoint = attempt.endpoint
        request.url = (
            request.url.with_scheme(endpoint.instance.scheme).with_host(endpoint.address).with_port(endpoint.port)
        )
        request.proxy = request.proxy_auth = request.proxy_headers = None
        request.response = None
        if request.is_ssl():
            request.server_hostname = self._routes.server_name(endpoint)


def session(client: Client, *, hash_key: HashKey | None = None, **options: Any) -> aiohttp.ClientSession:
    """An `aiohttp.ClientSession` for which services are hosts; takes its options and those of `AdsumMiddleware`."""
    routing = {name: options.pop(name) for name in IntegrationOptions.__annotations__ if name in options}
    ours = AdsumMiddleware(client, hash_key=hash_key, **cast("IntegrationOptions", routing))
    return aiohttp.ClientSession(middlewares=(*options.pop("middlewares", ()), ours), **options)


def _watch(response: ClientResponse, exchange: Exchange, attempt: Try) -> None:
    """End the try as the body of its answer ends, and at the deadline."""
    connection, body = response.connection, response.content
    if connection is None:  # It came with the head.
        attempt.finish()
        return
    left = exchange.call.time_left
    alarm: asyncio.TimerHandle | None = None

    def released() -> None:
        if alarm is not None:
            alarm.cancel()
        error = body.exception()
        # That plain error is the one by which aiohttp says that the answer was closed on our side.
        attempt.finish(ok=error is None or type(error) is aiohttp.ClientConnectionError)

    def overdue() -> None:
        body.set_exception(exchange.deadline_error(attempt))
        response.close()

    if left is not None:
        alarm = asyncio.get_running_loop().call_later(left, overdue)
    connection.add_callback(released)


def _kind(error: Exception, request: ClientRequest) -> FailureKind:
    """How a try failed. A time-out before there was a connection to send by is one of connecting."""
    kind = next(kind for each, kind in _KINDS.items() if isinstance(error, each))
    return FailureKind.CONNECT if kind is FailureKind.TIMEOUT and request.response is None else kind
