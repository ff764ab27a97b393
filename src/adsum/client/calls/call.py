"""The retry loop of one call: chooses the next endpoint, decides about retries, and keeps the deadline.

It does no I/O, so every integration shares it:

    call = channel.call(idempotent=True)
    while True:
        attempt = call.next_try()
        with attempt:
            ... wait attempt.pause, send to attempt.endpoint within attempt.timeout ...
            on an error: attempt.record_failure(FailureKind.…, "connection refused"); continue
        if attempt.should_retry(status): continue       # discard this answer
        ... return the answer; call attempt.finish() once its body was read or closed ...

A call is used by one task or thread at a time.
"""

from __future__ import annotations

from collections.abc import Set
from random import Random
from types import TracebackType
from typing import Protocol, Self

from adsum.balance.picker import NoEndpoint
from adsum.client.calls.failures import (
    FIRST_ERROR_STATUS,
    RETRY_RULES,
    RETRYABLE_STATUSES,
    CallFailed,
    FailedTry,
    FailureKind,
)
from adsum.client.calls.options import CallOptions
from adsum.client.calls.pick import Pick
from adsum.core.backoff import Backoff
from adsum.core.durations import format_duration

MIN_RETRY_PAUSE, MAX_RETRY_PAUSE = 0.025, 1.0
"""Seconds, bounds of the pause before the same endpoint is tried again."""


class CallChannel(Protocol):
    """The part of a channel that a call uses."""

    service: str
    rng: Random

    @property
    def usable_count(self) -> int:
        """The number of endpoints that can be picked now."""
        ...

    @property
    def view_warning(self) -> str:
        """A clause about the view that belongs in every error; "" if there is none."""
        ...

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Pick: ...

    def begin_call(self) -> None: ...

    def take_retry(self) -> bool: ...

    def now(self) -> float: ...


class Try:
    """One try at one endpoint, made by `Call.next_try`.

    It ends with `record_failure`, with `should_retry` and `finish`, or with `abandon`. As a context manager it is
    abandoned when an exception leaves the block before the try has ended.
    """

    __slots__ = ("_call", "_latency", "_pick", "endpoint", "number", "pause", "timeout")

    def __init__(self, call: Call, pick: Pick, number: int, timeout: float | None, pause: float) -> None:
        self._call = call
        self._pick = pick
        self._latency: float | None = None
        self.endpoint = pick.endpoint
        self.number = number
        """1 for the first."""
        self.timeout = timeout
        """Seconds that this try may take after its pause; None: no limit."""
        self.pause = pause
        """Seconds to wait before sending; above 0.0 only for an endpoint that was tried before."""

    @property
    def is_open(self) -> bool:
        """True if the try has not ended yet."""
        return self._pick.is_open

    @property
    def elapsed(self) -> float:
        """Seconds since the try began, without its pause."""
        return max(0.0, self._call.now() - self._pick.started_at - self.pause)

    def record_failure(self, kind: FailureKind, text: str) -> None:
        """Records that no answer came, for the reason `text`, a clause. Then call `Call.next_try`."""
        if self.is_open and self._latency is None:
            self._call.plan_retry(kind)
            self._end_as(kind, text)

    def should_retry(self, status: int) -> bool:
        """Records the status of an answer whose head has arrived, and returns whether to retry.

        True: discard the answer and call `Call.next_try`. False: the answer stands; call `finish` when its body was
        read or closed.
        """
        if not self.is_open or self._latency is not None:
            return False
        if status in RETRYABLE_STATUSES and self._call.plan_retry(FailureKind.STATUS):
            self._end_as(FailureKind.STATUS, f"it answered {status}")
            return True
        self._latency = self.elapsed
        if status >= FIRST_ERROR_STATUS:
            self._pick.done(False, self._latency)
        return False

    def finish(self, ok: bool = True) -> None:
        """Records that the answer's body was read or closed; `ok` is False if it broke off. Idempotent."""
        self._pick.done(ok, self._latency)

    def abandon(self) -> None:
        """Ends the try without a result, because the caller no longer needs it. The endpoint's record does not change.

        Idempotent.
        """
        self._pick.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()

    def _end_as(self, kind: FailureKind, text: str) -> None:
        duration = self.elapsed
        if RETRY_RULES[kind].counts_against_endpoint:
            self._pick.done(False, duration)
        else:
            self._pick.cancel()
        self._call.failed_tries.append(FailedTry(self.endpoint, kind, text, duration))


class Call:
    """A call to a service, made of tries until one is answered or no more are allowed."""

    def __init__(
        self, channel: CallChannel, options: CallOptions, *, idempotent: bool, hash_key: bytes | str | None = None
    ) -> None:
        self.failed_tries: list[FailedTry] = []
        """The tries that failed so far."""
        self._channel = channel
        self._options = options
        self._idempotent = idempotent
        self._hash_key = hash_key
        self._try_count = 0
        self._current: Try | None = None
        self._tried_ids: set[str] = set()
        self._backoff = Backoff(MIN_RETRY_PAUSE, MAX_RETRY_PAUSE)
        self._stop_reason = ""
        self._deadline = channel.now() + options.deadline if options.deadline is not None else None

    def now(self) -> float:
        return self._channel.now()

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, 0.0 once it has passed; None: there is no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - self.now())

    def deadline_error(self, attempt: Try) -> CallFailed:
        """Returns the error to raise when the deadline passes while the answer's body is being read."""
        text = "its answer was not read to the end"
        self.failed_tries.append(FailedTry(attempt.endpoint, FailureKind.TIMEOUT, text, attempt.elapsed))
        return self._failure(self._deadline_reason())

    def next_try(self) -> Try:
        """Returns the next try, and abandons the one before if it is open.

        Raises `NoEndpoint` if there is no endpoint for the first try, and `CallFailed` if no more tries are allowed.
        """
        if self._current is not None:
            self._current.abandon()
        if self._stop_reason:
            raise self._failure(self._stop_reason)
        pick, pause = self._pick()
        timeout = self._options.try_timeout
        if self._deadline is not None:
            left = self._deadline - self.now() - pause
            if left <= 0.0:
                pick.cancel()
                raise self._failure(self._deadline_reason())
            timeout = left if timeout is None else min(timeout, left)
        if not self._try_count:
            self._channel.begin_call()
        self._try_count += 1
        self._current = Try(self, pick, self._try_count, timeout, pause)
        return self._current

    def plan_retry(self, kind: FailureKind) -> bool:
        """Returns whether a failure of this kind is retried, and takes the retry from the retry budget if so."""
        self._stop_reason = self._refuse_retry(kind)
        return not self._stop_reason

    def _refuse_retry(self, kind: FailureKind) -> str:
        """Returns the reason not to try again; "" if there is none."""
        if not (self._idempotent or RETRY_RULES[kind].always_retryable):
            return "the request had been sent and is not idempotent, so it may have taken effect"
        if self._try_count >= self._options.tries:
            return (
                f"it may be tried {self._options.tries} times at most"
                if self._options.tries > 1
                else "it may be tried only once"
            )
        if self._deadline is not None and self.now() >= self._deadline:
            return self._deadline_reason()
        if not self._channel.usable_count:
            return "no endpoint is usable any more"
        if not self._channel.take_retry():
            return "the retry budget of the service is spent, and more retries would make an outage worse"
        return ""

    def _pick(self) -> tuple[Pick, float]:
        """Picks an endpoint that was not tried yet; when all were tried, any endpoint, after a pause."""
        pause = 0.0
        try:
            pick = self._channel.pick(self._hash_key, self._tried_ids or None)
        except NoEndpoint as error:
            if not self._try_count:
                raise
            self._tried_ids.clear()
            pause = self._backoff.next(self._channel.rng)
            try:
                pick = self._channel.pick(self._hash_key)
            except NoEndpoint:
                raise self._failure(str(error)) from None
        self._tried_ids.add(pick.endpoint.id)
        return pick, pause

    def _deadline_reason(self) -> str:
        return f"its deadline of {format_duration(self._options.deadline or 0.0)} has passed"

    def _failure(self, reason: str) -> CallFailed:
        self._stop_reason = reason
        warning = self._channel.view_warning
        return CallFailed(
            self._channel.service, tuple(self.failed_tries), f"{reason}; {warning}" if warning else reason
        )
