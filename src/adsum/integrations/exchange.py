"""One request to a service, from the first try to the answer that stands: what is the same for every HTTP library.

When to try again is decided in `adsum.client.calls.call`. Here: what a request's method, body and terms mean for that, and
how its failure is told in the library's own errors.
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
    """What is asked of a channel, asynchronous or not."""

    @property
    def options(self) -> ChannelOptions: ...

    def call(
        self, *, idempotent: bool, hash_key: bytes | str | None = None, options: CallOptions | None = None
    ) -> Call: ...


class Exchange:
    """Used by one task or thread at a time.

    exchange = Exchange(channel, "GET", "http", replayable=True, terms=terms(), errors=_ERRORS)
    while True:
        with exchange.next_try() as attempt:
            … send to attempt.endpoint within attempt.timeout, after attempt.pause; on an error:
            exchange.failed(attempt, Kind.…, error); continue
        if exchange.answered(attempt, status): … throw it away; continue
        … hand it on; attempt.finish() when its body was read or closed
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
        """`scheme` is the URL's; `replayable`: the body can be sent again; `errors`: what to raise when the last try
        failed so. Raises `Invalid` for terms that can't be.
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
        """The next try at an endpoint that the request may go to. Raises one of `errors`, or `NoEndpoint`."""
        while True:
            try:
                attempt = self.call.next_try()
            except CallFailed as failure:
                cause, self._cause = self._cause, None
                raise self._told(failure) from cause
            objection = _objection(attempt.endpoint, self._scheme)
            if not objection:
                return attempt
            attempt.record_failure(FailureKind.UNSENT, objection)

    def record_failure(self, attempt: Try, kind: FailureKind, error: BaseException, reason: str = "") -> None:
        """The try got no answer, because of `error`, in these words or its own."""
        self._cause = error
        attempt.record_failure(kind, reason or str(error) or type(error).__name__)

    def should_retry(self, attempt: Try, status: int) -> bool:
        """As `Try.answered`: True says to throw this answer away and to ask for the next try."""
        # An error holds the frames it came through, and they hold us: let go, or connections wait for the collector.
        self._cause = None
        return attempt.should_retry(status)

    def deadline_error(self, attempt: Try) -> CallFailed:
        """What to raise when the deadline comes while the answer's body is being read."""
        return self._told(self.call.deadline_error(attempt))

    @property
    def is_overdue(self) -> bool:
        """Whether the deadline has come."""
        return self.call.time_left == 0.0

    def first_view_timeout(self, ready_timeout: float) -> float:
        """Seconds to wait for a service of which nothing is known yet."""
        return shorter(ready_timeout, self.call.time_left) or 0.0

    def _told(self, failure: CallFailed) -> CallFailed:
        late = self.is_overdue or not failure.tries
        error = self._errors[FailureKind.TIMEOUT if late else failure.tries[-1].kind]
        return error(failure.service, failure.tries, failure.reason)


async def wait_for_first_view(channel: Channel, timeout: float) -> None:
    """Return once anything was said of the service, be it that nobody is there; at latest after `patience` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout), aclosing(channel.resolver.watch()) as views:
            await anext(views, None)


def has_no_view(view: View) -> bool:
    """Whether nothing was ever said of the service: the channel has just been opened."""
    return view.origin is ViewOrigin.NONE


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two lengths; None is endless."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _objection(endpoint: Endpoint, asked: str) -> str:
    """Why the request can't be sent there; "". What was meant to be encrypted never goes out in the clear."""
    scheme = endpoint.instance.scheme
    if scheme == "https" or scheme == asked == "http":
        return ""
    return f"it speaks {scheme}, not {asked}, so nothing was sent"
