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
from adsum.client.calls.failures import Kind
from adsum.client.client import Client
from adsum.integrations.exchange import Exchange, first_word, unheard_of
from adsum.integrations.request_options import calling as calling
from adsum.integrations.request_options import terms
from adsum.integrations.service_channels import Routes, Routing

HashKey = Callable[[ClientRequest], bytes | str | None]


class CallFailed(failures.CallFailed, aiohttp.ClientConnectionError):
    """No try got an answer; `tries` says of each why."""


class Unreached(CallFailed):
    """No instance could be reached."""


class Broken(CallFailed):
    """The connection broke after sending, and sending again was not safe or did not help."""


class TimedOut(CallFailed, aiohttp.ServerTimeoutError):
    """No answer in time."""


class Nobody(NoEndpoint, aiohttp.ClientConnectionError):
    """There is no instance to call; the words say why."""


ERRORS: Final[Mapping[Kind, type[CallFailed]]] = {
    Kind.CONNECT: Unreached,
    Kind.UNSENT: Unreached,
    Kind.STATUS: Unreached,
    Kind.BROKEN: Broken,
    Kind.TIMEOUT: TimedOut,
}
_KINDS: Final[Mapping[type[Exception], Kind]] = {
    aiohttp.ClientConnectorError: Kind.CONNECT,
    aiohttp.ClientConnectorCertificateError: Kind.CONNECT,
    aiohttp.ServerFingerprintMismatch: Kind.CONNECT,
    aiohttp.ConnectionTimeoutError: Kind.CONNECT,
    TimeoutError: Kind.TIMEOUT,
    aiohttp.ClientConnectionError: Kind.BROKEN,
    aiohttp.ClientResponseError: Kind.BROKEN,
    aiohttp.ClientPayloadError: Kind.BROKEN,
    OSError: Kind.BROKEN,
}
"""How a try failed, by the first class that fits. Errors that are not in here are not the endpoint's."""
_FAILURES: Final[tuple[type[Exception], ...]] = tuple(_KINDS)


class AdsumMiddleware:
    """Sends what is for a service to a live instance of it.

    `hash_key` says what hash policies choose by, unless `calling` does. Takes the options of `Routing`.
    """

    def __init__(self, client: Client, *, hash_key: HashKey | None = None, **routing: Unpack[Routing]) -> None:
        self._routes: Routes[Channel] = Routes(client.requested_channel, routing)
        self._hash_key = hash_key

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Raises `CallFailed`, `Nobody`, `Invalid` for terms that are none, and what aiohttp raises."""
        asked = request.url
        service = self._routes.service(asked.scheme, asked.host or "", asked.explicit_port)
        if service is None:
            return await send(request)
        try:
            channel = self._routes.channel(service)
            exchange = self._exchange(channel, request)
            if unheard_of(channel.resolver.view):
                await first_word(channel, exchange.patience(self._routes.ready))
            return await self._send(request, send, exchange)
        except NoEndpoint as nobody:
            raise Nobody(str(nobody)) from None
        finally:
            request.url = asked

    def _exchange(self, channel: Channel, request: ClientRequest) -> Exchange:
        agreed = terms()
        if agreed.hash_key is None and self._hash_key is not None:
            agreed = agreed.but({"hash_key": self._hash_key(request)})
        return Exchange(
            channel,
            request.method,
            request.url.scheme,
            replayable=isinstance(request.body, bytes | BytesPayload),
            terms=agreed,
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
                    exchange.failed(attempt, _kind(error, request), error)
                    if type(error) is TimeoutError and not ours.expired():
                        raise  # The time of the whole request is over, as the session counts it.
                    continue
            if exchange.answered(attempt, response.status):
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
    routing = {name: options.pop(name) for name in Routing.__annotations__ if name in options}
    ours = AdsumMiddleware(client, hash_key=hash_key, **cast("Routing", routing))
    return aiohttp.ClientSession(middlewares=(*options.pop("middlewares", ()), ours), **options)


def _watch(response: ClientResponse, exchange: Exchange, attempt: Try) -> None:
    """End the try as the body of its answer ends, and at the deadline."""
    connection, body = response.connection, response.content
    if connection is None:  # It came with the head.
        attempt.finish()
        return
    left = exchange.call.left
    alarm: asyncio.TimerHandle | None = None

    def released() -> None:
        if alarm is not None:
            alarm.cancel()
        error = body.exception()
        # That plain error is the one by which aiohttp says that the answer was closed on our side.
        attempt.finish(ok=error is None or type(error) is aiohttp.ClientConnectionError)

    def overdue() -> None:
        body.set_exception(exchange.overdue(attempt))
        response.close()

    if left is not None:
        alarm = asyncio.get_running_loop().call_later(left, overdue)
    connection.add_callback(released)


def _kind(error: Exception, request: ClientRequest) -> Kind:
    """How a try failed. A time-out before there was a connection to send by is one of connecting."""
    kind = next(kind for each, kind in _KINDS.items() if isinstance(error, each))
    return Kind.CONNECT if kind is Kind.TIMEOUT and request.response is None else kind
