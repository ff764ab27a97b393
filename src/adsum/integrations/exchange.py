"""One request to a service, from the first try to the final response. All HTTP integrations use it.

`adsum.client.calls` decides when to try again. This module translates a request's method, body and options for it, and
its failures into the library's own errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Protocol

from adsum.client.calls.call import Call, Try
from adsum.client.calls.channel import Channel
from adsum.client.calls.failures import IDEMPOTENT_METHODS, CallFailed, FailureKind
from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.views.view import View, ViewOrigin
from adsum.core.model import Endpoint
from adsum.integrations.request_options import RequestOptions


class ExchangeChannel(Protocol):
    """The part of a channel that an exchange needs. The channel may be asynchronous or not."""

    @property
    def options(self) -> ChannelOptions: ...

    def call(
        self, *, idempotent: bool, hash_key: bytes | str | None = None, options: CallOptions | None = None
    ) -> Call: ...


class Exchange:
    """The tries of one request. Used by one task or thread at a time.

    exchange = Exchange(channel, "GET", "http", replayable=True, request_options=current_options(), errors=ERRORS)
    while True:
        with exchange.next_try() as attempt:
            … wait attempt.pause, send to attempt.endpoint within attempt.timeout; on an error:
            exchange.record_failure(attempt, kind, error); continue
        if exchange.should_retry(attempt, status): … discard the response; continue
        … return the response; attempt.finish() once its body was read or closed
    """

    def __init__(
        self,
        channel: ExchangeChannel,
        method: str,
        scheme: str,
        *,
        replayable: bool,
        request_options: RequestOptions,
        errors: Mapping[FailureKind, type[CallFailed]],
    ) -> None:
        """`scheme` is the URL's. `replayable`: the body can be sent again. `errors`: what to raise, by the kind of the
        last failure. Raises `Invalid` for wrong request options.
        """
        idempotent = (
            method.upper() in IDEMPOTENT_METHODS if request_options.idempotent is None else request_options.idempotent
        )
        self.call = channel.call(
            idempotent=idempotent and replayable,
            hash_key=request_options.hash_key,
            options=request_options.applied_to(channel.options.calls),
        )
        self._scheme = scheme
        self._errors = errors
        self._cause: BaseException | None = None

    def next_try(self) -> Try:
        """Returns the next try at an endpoint that the request may go to. Raises one of `errors`, or `NoEndpoint`."""
        while True:
            try:
                attempt = self.call.next_try()
            except CallFailed as failure:
                cause, self._cause = self._cause, None
                raise self._library_error(failure) from cause
            objection = _objection(attempt.endpoint, self._scheme)
            if not objection:
                return attempt
            attempt.record_failure(FailureKind.UNSENT, objection)

    def record_failure(self, attempt: Try, kind: FailureKind, error: BaseException, reason: str = "") -> None:
        """Records that the try got no response because of `error`. `reason` replaces the error's own text."""
        self._cause = error
        attempt.record_failure(kind, reason or str(error) or type(error).__name__)

    def should_retry(self, attempt: Try, status: int) -> bool:
        """Like `Try.should_retry`: True means to discard this response and to get the next try."""
        # The error's traceback refers to this exchange. Drop it, or connections stay open until garbage collection.
        self._cause = None
        return attempt.should_retry(status)

    def deadline_error(self, attempt: Try) -> CallFailed:
        """Returns the error to raise when the deadline passes while the response body is read."""
        return self._library_error(self.call.deadline_error(attempt))

    @property
    def is_overdue(self) -> bool:
        """True once the deadline has passed."""
        return self.call.time_left == 0.0

    def first_view_timeout(self, ready_timeout: float) -> float:
        """Returns how many seconds to wait for the first view of the service."""
        return shorter(ready_timeout, self.call.time_left) or 0.0

    def _library_error(self, failure: CallFailed) -> CallFailed:
        is_late = self.is_overdue or not failure.tries
        error = self._errors[FailureKind.TIMEOUT if is_late else failure.tries[-1].kind]
        return error(failure.service, failure.tries, failure.reason)


async def wait_for_first_view(channel: Channel, timeout: float) -> None:
    """Returns once there is a view of the service, even one without instances, or after `timeout` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout), aclosing(channel.resolver.watch()) as views:
            await anext(views, None)


def has_no_view(view: View) -> bool:
    """Returns whether the channel has no view of the service yet, because it has just been opened."""
    return view.origin is ViewOrigin.NONE


def shorter(one: float | None, other: float | None) -> float | None:
    """Returns the shorter of two lengths; None is endless."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _objection(endpoint: Endpoint, url_scheme: str) -> str:
    """Returns why the request can't go to the endpoint; "" if it can. An https request is never sent unencrypted."""
    scheme = endpoint.instance.scheme
    if scheme == "https" or scheme == url_scheme == "http":
        return ""
    return f"the instance speaks {scheme} and the request asks for {url_scheme}, so nothing was sent"
