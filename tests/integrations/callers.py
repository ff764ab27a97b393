"""The HTTP libraries behind one interface, so that one test suite covers all of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import httpx
import requests

import adsum.integrations.aiohttp as our_aiohttp
import adsum.integrations.httpx as our_httpx
import adsum.integrations.requests as our_requests
from adsum.client.calls.channel import Channel
from adsum.client.calls.failures import CallFailed
from adsum.client.calls.options import ChannelOptions
from adsum.client.client import Client
from adsum.client.sync import SyncClient
from adsum.core.model import Endpoint
from tests.client.fakes import ScriptedSource
from tests.probes.servers import CERTIFICATE


@dataclass(frozen=True)
class CallerAnswer:
    status: int
    text: str
    headers: Mapping[str, str]
    url: str


class StreamedAnswer(Protocol):
    """A streamed response whose head has arrived."""

    async def close(self) -> None: ...


class LibraryCaller(Protocol):
    """One library with its own client on `source`. `options` are those of the integration."""

    @property
    def broken_body(self) -> type[Exception]:
        """The error that the library raises when a body breaks off."""
        ...

    @property
    def transport_error(self) -> type[Exception]:
        """The error that users of the library catch."""
        ...

    @property
    def timeout_error(self) -> type[Exception]: ...

    @property
    def unreachable(self) -> type[CallFailed]: ...

    @property
    def broken(self) -> type[CallFailed]: ...

    @property
    def timed_out(self) -> type[CallFailed]: ...

    @property
    def no_endpoint(self) -> type[Exception]: ...

    @property
    def blocks(self) -> bool:
        """True if it waits in a thread, which can't be cancelled."""
        ...

    async def call(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CallerAnswer: ...

    async def upload(self, method: str, url: str, parts: list[bytes]) -> CallerAnswer:
        """Sends a body that can be sent only once."""
        ...

    async def stream(self, url: str) -> StreamedAnswer: ...

    def channel(self) -> Channel: ...

    async def close(self) -> None: ...


def client_tls_context() -> ssl.SSLContext:
    """The TLS context of a client that trusts the test's certificate, which is for the name instance.test."""
    return ssl.create_default_context(cafile=CERTIFICATE)


class AsyncHttpxCaller:
    broken_body = httpx.RemoteProtocolError
    transport_error = httpx.TransportError
    timeout_error = httpx.TimeoutException
    unreachable, broken, timed_out = (
        our_httpx.HttpxUnreachable,
        our_httpx.HttpxConnectionBroken,
        our_httpx.HttpxTimedOut,
    )
    no_endpoint = our_httpx.HttpxNoEndpoint
    blocks = False

    def __init__(self, source: ScriptedSource, **options: Any) -> None:
        self._options = options.get("channel")
        if options.pop("trust", False):
            options["verify"] = client_tls_context()
        self._client = Client(source=source, cache=options.pop("cache", False))
        self._http = our_httpx.AsyncHttpxClient(self._client, **{"follow_redirects": True, **options})

    async def call(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CallerAnswer:
        answer = await self._http.request(method, url, content=body, headers=headers)
        return CallerAnswer(answer.status_code, answer.text, answer.headers, str(answer.url))

    async def upload(self, method: str, url: str, parts: list[bytes]) -> CallerAnswer:
        answer = await self._http.request(method, url, content=_async_once(parts))
        return CallerAnswer(answer.status_code, answer.text, answer.headers, str(answer.url))

    async def stream(self, url: str) -> StreamedAnswer:
        answer = await self._http.send(self._http.build_request("GET", url), stream=True)
        return _Opened(answer.aclose)

    def channel(self) -> Channel:
        return self._client.channel("orders", self._options)

    async def close(self) -> None:
        await self._http.aclose()
        await self._client.close()


class AiohttpCaller:
    broken_body = aiohttp.ClientPayloadError
    transport_error = aiohttp.ClientError
    timeout_error = TimeoutError
    unreachable, broken, timed_out = (
        our_aiohttp.AiohttpUnreachable,
        our_aiohttp.AiohttpConnectionBroken,
        our_aiohttp.AiohttpTimedOut,
    )
    no_endpoint = our_aiohttp.AiohttpNoEndpoint
    blocks = False

    def __init__(self, source: ScriptedSource, **options: Any) -> None:
        self._options = options.get("channel")
        if options.pop("trust", False):
            options["connector"] = aiohttp.TCPConnector(ssl=client_tls_context())
        self._client = Client(source=source, cache=options.pop("cache", False))
        self._http = our_aiohttp.session(self._client, **options)

    async def call(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CallerAnswer:
        return await self._call(method, url, body, headers)

    async def upload(self, method: str, url: str, parts: list[bytes]) -> CallerAnswer:
        return await self._call(method, url, _async_once(parts), None)

    async def _call(self, method: str, url: str, body: Any, headers: Mapping[str, str] | None) -> CallerAnswer:
        async with self._http.request(method, url, data=body, headers=headers) as answer:
            return CallerAnswer(answer.status, await answer.text(), answer.headers, str(answer.url))

    async def stream(self, url: str) -> StreamedAnswer:
        answer = await self._http.get(url)

        async def close() -> None:
            answer.close()

        return _Opened(close)

    def channel(self) -> Channel:
        return self._client.channel("orders", self._options)

    async def close(self) -> None:
        await self._http.close()
        await self._client.close()


class SyncHttpxCaller:
    broken_body = httpx.RemoteProtocolError
    transport_error = httpx.TransportError
    timeout_error = httpx.TimeoutException
    unreachable, broken, timed_out = (
        our_httpx.HttpxUnreachable,
        our_httpx.HttpxConnectionBroken,
        our_httpx.HttpxTimedOut,
    )
    no_endpoint = our_httpx.HttpxNoEndpoint
    blocks = True

    def __init__(self, source: ScriptedSource, **options: Any) -> None:
        self._options = options.get("channel")
        if options.pop("trust", False):
            options["verify"] = client_tls_context()
        self._client = SyncClient(source=source, cache=options.pop("cache", False))
        self._http = our_httpx.HttpxClient(self._client, **{"follow_redirects": True, **options})

    async def call(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CallerAnswer:
        return await asyncio.to_thread(self._call, method, url, body, headers)

    async def upload(self, method: str, url: str, parts: list[bytes]) -> CallerAnswer:
        return await asyncio.to_thread(self._call, method, url, _once(parts), None)

    def _call(self, method: str, url: str, body: Any, headers: Mapping[str, str] | None) -> CallerAnswer:
        answer = self._http.request(method, url, content=body, headers=headers)
        return CallerAnswer(answer.status_code, answer.text, answer.headers, str(answer.url))

    async def stream(self, url: str) -> StreamedAnswer:
        request = self._http.build_request("GET", url)
        answer = await asyncio.to_thread(self._http.send, request, stream=True)

        async def close() -> None:
            answer.close()

        return _Opened(close)

    def channel(self) -> Channel:
        return self._client.channel("orders", self._options).open()

    async def close(self) -> None:
        self._http.close()
        await asyncio.to_thread(self._client.close)


class RequestsCaller:
    broken_body = requests.exceptions.ChunkedEncodingError
    transport_error = requests.ConnectionError
    timeout_error = requests.Timeout
    unreachable, broken, timed_out = (
        our_requests.RequestsUnreachable,
        our_requests.RequestsConnectionBroken,
        our_requests.RequestsTimedOut,
    )
    no_endpoint = our_requests.RequestsNoEndpoint
    blocks = True

    def __init__(self, source: ScriptedSource, **options: Any) -> None:
        self._verify = str(CERTIFICATE) if options.pop("trust", False) else True
        self._options = options.get("channel")
        self._client = SyncClient(source=source, cache=options.pop("cache", False))
        self._http = our_requests.RequestsSession(self._client, **options)

    async def call(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CallerAnswer:
        return await asyncio.to_thread(self._call, method, url, body, headers)

    async def upload(self, method: str, url: str, parts: list[bytes]) -> CallerAnswer:
        return await asyncio.to_thread(self._call, method, url, _once(parts), None)

    def _call(self, method: str, url: str, body: Any, headers: Mapping[str, str] | None) -> CallerAnswer:
        answer = self._http.request(method, url, data=body, headers=headers, verify=self._verify)
        return CallerAnswer(answer.status_code, answer.text, answer.headers, answer.url)

    async def stream(self, url: str) -> StreamedAnswer:
        answer = await asyncio.to_thread(self._http.get, url, stream=True)

        async def close() -> None:
            answer.close()

        return _Opened(close)

    def channel(self) -> Channel:
        return self._client.channel("orders", self._options).open()

    async def close(self) -> None:
        self._http.close()
        await asyncio.to_thread(self._client.close)


CALLERS: dict[str, Callable[..., LibraryCaller]] = {
    "httpx-async": AsyncHttpxCaller,
    "httpx-sync": SyncHttpxCaller,
    "aiohttp": AiohttpCaller,
    "requests": RequestsCaller,
}


def in_flight(channel: Channel, *endpoints: Endpoint) -> int:
    """The number of calls that the channel counts at these endpoints."""
    return sum(channel.loads.load_of(endpoint.id).in_flight for endpoint in endpoints)


def options(policy: str = "round_robin") -> ChannelOptions:
    """Round robin without outlier ejection, so that tests know which instance is called."""
    return ChannelOptions(policy=policy, outliers=None)


class _Opened:
    def __init__(self, close: Callable[[], Any]) -> None:
        self._close = close

    async def close(self) -> None:
        await self._close()


async def _async_once(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _once(parts: list[bytes]) -> Iterator[bytes]:
    yield from parts
