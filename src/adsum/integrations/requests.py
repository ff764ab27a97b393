"""requests: a request for `http://orders/path` goes to a live instance of the service orders.

    with adsum.SyncClient() as client, RequestsSession(client) as http, request_options(deadline=2.0):
        http.get("http://orders/path")

For a session of your own, use `session.mount("http://", AdsumAdapter(client))`. A service is a host of one label
without a port; requests handles every other URL. Path, query and headers stay as they are. `Host` is the service's name
(or what you set), so virtual hosts, redirects and cookies refer to the service, whichever instance answers. The scheme
is the instance's. Requests to instances use no proxy.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Unpack, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import DEFAULT_POOLSIZE, HTTPAdapter
from urllib3.exceptions import EmptyPoolError, MaxRetryError, NewConnectionError, SSLError
from urllib3.util.ssl_match_hostname import CertificateError

from adsum.balance.picker import NoEndpoint
from adsum.client.calls import failures
from adsum.client.calls.call import Try
from adsum.client.calls.failures import FailureKind
from adsum.client.sync import SyncChannel, SyncClient
from adsum.core.model import Endpoint
from adsum.integrations.exchange import Exchange, has_no_view, shorter, wait_for_first_view
from adsum.integrations.request_options import current_options
from adsum.integrations.request_options import request_options as request_options
from adsum.integrations.service_channels import IntegrationOptions, ServiceChannels

HashKey = Callable[[requests.PreparedRequest], bytes | str | None]

MAX_POOLED_HOSTS: Final = 10 * DEFAULT_POOLSIZE
"""Instances whose connections are kept open. For one more, those of the least recently called instance are closed."""


class RequestsCallFailed(failures.CallFailed, requests.ConnectionError):
    """No try got a response. `tries` says why each one failed."""


class RequestsUnreachable(RequestsCallFailed):
    """No instance could be reached."""


class RequestsConnectionBroken(RequestsCallFailed):
    """The connection broke after sending, and sending again was not safe or did not help."""


class RequestsTimedOut(RequestsCallFailed, requests.ReadTimeout):
    """No answer in time."""


class RequestsNoEndpoint(NoEndpoint, requests.ConnectionError):
    """There is no instance to call; the message says why."""


ERRORS: Final[Mapping[FailureKind, type[RequestsCallFailed]]] = {
    FailureKind.CONNECT: RequestsUnreachable,
    FailureKind.UNSENT: RequestsUnreachable,
    FailureKind.STATUS: RequestsUnreachable,
    FailureKind.BROKEN: RequestsConnectionBroken,
    FailureKind.TIMEOUT: RequestsTimedOut,
}
_FAILURES: Final = (requests.ConnectionError, requests.Timeout, EmptyPoolError)


class AdsumAdapter(HTTPAdapter):
    """Sends requests for a service to a live instance of it. Thread-safe.

    `hash_key` returns the key for hash policies, unless `request_options` sets one. Also takes `IntegrationOptions`
    and, in `pool`, the options of `HTTPAdapter`. A thread that waits for the network can't be interrupted. So each wait
    is limited to what is left of the try when it begins, and the deadline is checked after each part of the body.
    """

    def __init__(
        self,
        client: SyncClient,
        *,
        hash_key: HashKey | None = None,
        pool: Mapping[str, Any] | None = None,
        **options: Unpack[IntegrationOptions],
    ) -> None:
        self._client = client
        self._services: ServiceChannels[SyncChannel] = ServiceChannels(client.on_demand_channel, options)
        self._hash_key = hash_key
        super().__init__(**{"pool_connections": MAX_POOLED_HOSTS, **(pool or {})})

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Raises `CallFailed`, `RequestsNoEndpoint`, `Invalid` for wrong request options, and requests' own errors."""
        url = urlsplit(cast("str", request.url))
        service = self._services.service(url.scheme, url.hostname or "", url.port)
        if service is None:
            return super().send(request, stream, timeout, verify, cert, proxies)
        try:
            channel = self._services.channel(service)
            exchange = self._exchange(channel, request, url.scheme)
            if has_no_view(channel.view):
                async_channel, limit = channel.open(), exchange.first_view_timeout(self._services.ready_timeout)
                self._client.run(lambda _: wait_for_first_view(async_channel, limit))
            return self._send(request, exchange, timeout, {"stream": stream, "verify": verify, "cert": cert})
        except NoEndpoint as error:
            raise RequestsNoEndpoint(str(error), request=request) from None
        except RequestsCallFailed as failure:
            failure.request = request
            raise

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Like the base class, plus the name that the certificate of an https instance must have."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if isinstance(request, _DirectedRequest) and host["scheme"] == "https":
            name = self._services.server_name(request.endpoint)
            return host, {**pool, "server_hostname": name, "assert_hostname": name if verify else False}
        return host, pool

    def close(self) -> None:
        """Closes every connection at once. Otherwise, an error that is still referenced would keep its pool open."""
        for key in self.poolmanager.pools.keys():  # noqa: SIM118 - only its keys can be iterated over
            pool = self.poolmanager.pools.get(key)
            if pool is not None:
                pool.close()
        super().close()

    def _exchange(self, channel: SyncChannel, request: requests.PreparedRequest, scheme: str) -> Exchange:
        options = current_options()
        if options.hash_key is None and self._hash_key is not None:
            options = options.merged({"hash_key": self._hash_key(request)})
        return Exchange(
            channel,
            request.method or "GET",
            scheme,
            replayable=request.body is None or isinstance(request.body, bytes | str),
            request_options=options,
            errors=ERRORS,
        )

    def _send(
        self, request: requests.PreparedRequest, exchange: Exchange, timeout: Any, options: dict[str, Any]
    ) -> requests.Response:
        while True:
            with exchange.next_try() as attempt:
                if attempt.pause:
                    time.sleep(attempt.pause)
                directed, limits = _DirectedRequest(request, attempt.endpoint), _limits(timeout, attempt.timeout)
                try:
                    response = super().send(directed, timeout=limits, proxies={}, **options)
                except _FAILURES as error:
                    reason = _reason(error)
                    exchange.record_failure(attempt, _kind(error, reason), error, str(reason))
                    continue
            if exchange.should_retry(attempt, response.status_code):
                response.close()
                continue
            response.request, response.url = request, cast("str", request.url)
            response.raw = _Body(response.raw, exchange, attempt)
            return response


class RequestsSession(requests.Session):
    """A `requests.Session` in which services are hosts. Takes the options of `AdsumAdapter`."""

    def __init__(self, client: SyncClient, **options: Any) -> None:
        super().__init__()
        adapter = AdsumAdapter(client, **options)
        self.mount("http://", adapter)
        self.mount("https://", adapter)


class _DirectedRequest(requests.PreparedRequest):
    """A request as it goes to an endpoint."""

    def __init__(self, request: requests.PreparedRequest, endpoint: Endpoint) -> None:
        self.__dict__.update(request.copy().__dict__)
        self.endpoint = endpoint
        url = cast("str", request.url)
        self.url = f"{endpoint.url}/{url.partition('://')[2].partition('/')[2]}"
        self.headers.setdefault("Host", urlsplit(url).hostname or "")


class _Body:
    """The raw response. The try ends with the body, as a failure if that breaks off. Everything else is passed on."""

    def __init__(self, inner: Any, exchange: Exchange, attempt: Try) -> None:
        self._inner = inner
        self._exchange = exchange
        self._attempt = attempt

    def stream(self, amt: int | None = 65_536, decode_content: bool | None = None) -> Iterator[bytes]:
        """Like urllib3's. With a deadline it yields whatever has arrived, so that it notices when that passes."""
        if self._exchange.call.time_left is None or self._inner.chunked:
            parts = self._inner.stream(amt, decode_content)
        else:
            parts = iter(lambda: self._inner.read1(amt, decode_content=decode_content), b"")
        while (part := self._read(next, parts, None)) is not None:
            yield part
        self._attempt.finish()

    def read(self, *args: Any, **options: Any) -> Any:
        return self._read(self._inner.read, *args, **options)

    def read1(self, *args: Any, **options: Any) -> Any:
        return self._read(self._inner.read1, *args, **options)

    def readinto(self, buffer: Any) -> Any:
        return self._read(self._inner.readinto, buffer)

    def release_conn(self) -> None:
        try:
            self._inner.release_conn()
        finally:
            self._attempt.finish()

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._attempt.finish()

    def __iter__(self) -> Iterator[bytes]:
        return self.stream()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _read(self, read: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            part = read(*args, **options)
        except urllib3.exceptions.HTTPError as error:
            self._attempt.finish(ok=False)
            if self._exchange.is_overdue:
                raise self._exchange.deadline_error(self._attempt) from error
            raise
        except BaseException:
            self._attempt.abandon()
            raise
        if self._inner.closed:
            self._attempt.finish()
        elif self._exchange.is_overdue:
            self._attempt.abandon()  # The caller may have been slow, so the endpoint is not blamed.
            self._inner.close()
            raise self._exchange.deadline_error(self._attempt)
        return part


def _limits(given: Any, length: float | None) -> Any:
    """Returns the timeouts of a try that may take `length` seconds."""
    if length is None:
        return given
    if isinstance(given, urllib3.Timeout):
        limits = given.clone()
        limits.total = shorter(cast("float | None", given.total), length)
        return limits
    connect, read = given if isinstance(given, tuple) else (given, given)
    return urllib3.Timeout(total=length, connect=connect, read=read)


def _reason(error: Exception) -> Any:
    """Returns urllib3's own error, without the errors around it."""
    inner = error.args[0] if error.args else error
    return inner.reason if isinstance(inner, MaxRetryError) and inner.reason else inner


def _kind(error: Exception, reason: Any) -> FailureKind:
    """Returns how a try failed. If in doubt, the request was sent."""
    if isinstance(error, EmptyPoolError):
        return FailureKind.UNSENT
    if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
        return FailureKind.CONNECT
    if isinstance(reason, SSLError) and isinstance(reason.args[0], CertificateError | ssl.SSLCertVerificationError):
        return FailureKind.CONNECT
    return FailureKind.TIMEOUT if isinstance(error, requests.Timeout) else FailureKind.BROKEN
