"""The engine of a call: which endpoint next, after which failure, until when. No I/O, so every integration shares it.

    call = channel.call(idempotent=True)
    while True:
        attempt = call.next_try()
        with attempt:
            ... wait attempt.pause, send to attempt.endpoint within attempt.timeout ...
            on an error: attempt.failed(Kind.…, "what happened"); continue
        if attempt.answered(status): continue       # throw that answer away
        ... hand the answer on; attempt.finish() once its body was read or closed ...

A call belongs to one task or thread at a time.
"""

from __future__ import annotations

from collections.abc import Set
from random import Random
from types import TracebackType
from typing import Protocol, Self

from adsum.balance.picker import NoEndpoint
from adsum.client.calls.failures import FIRST_ERROR_STATUS, RETRY_RULES, RETRYABLE_STATUSES, CallFailed, FailedTry
from adsum.client.calls.failures import IDEMPOTENT_METHODS as IDEMPOTENT_METHODS
from adsum.client.calls.failures import FailureKind as FailureKind
from adsum.client.calls.options import CallOptions
from adsum.client.calls.pick import Pick
from adsum.client.durations import format_duration
from adsum.core.backoff import Backoff

MIN_RETRY_PAUSE, MAX_RETRY_PAUSE = 0.025, 1.0
"""Bounds of the pause before the same endpoint is tried again."""


class CallChannel(Protocol):
    """What a call asks of its channel."""

    service: str
    rng: Random

    @property
    def usable_count(self) -> int:
        """How many endpoints may be picked now."""
        ...

    @property
    def view_warning(self) -> str:
        """What every error must say about the view, in a clause; "" if nothing."""
        ...

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Pick: ...

    def begin_call(self) -> None: ...

    def take_retry(self) -> bool: ...

    def now(self) -> float: ...


class Try:
    """One try at one endpoint. Made by `Call.next_try`; ends with `failed`, `answered` and `finish`, or `abandon`.

    As a context manager it is abandoned when anything escapes the block before it has ended.
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
        """Seconds that this try may take, after the pause; None: as long as it likes."""
        self.pause = pause
        """Seconds to wait before sending; 0.0 but for an endpoint that was tried before."""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return self._pick.is_open

    @property
    def elapsed(self) -> float:
        """Seconds since it began, without its pause."""
        return max(0.0, self._call.now() - self._pick.started_at - self.pause)

    def record_failure(self, kind: FailureKind, text: str) -> None:
        """It got no answer; `text` says why, in a clause. Ask the call for the next try."""
        if self.is_open and self._latency is None:
            self._call.plan_retry(kind)
            self._end_as(kind, text)

    def should_retry(self, status: int) -> bool:
        """The head of an answer came. True: throw it away and ask for the next try. False: it stands; `finish` when its
        body was read or closed.
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
        """The answer's body was read or closed; `ok` False if it broke off. Idempotent."""
        self._pick.done(ok, self._latency)

    def abandon(self) -> None:
        """The caller does not want it any more, which says nothing about the endpoint. Idempotent."""
        self._pick.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()

    def _end_as(self, kind: FailureKind, text: str) -> None:
        took = self.elapsed
        if RETRY_RULES[kind].counts_against_endpoint:
            self._pick.done(False, took)
        else:
            self._pick.cancel()
        self._call.failed_tries.append(FailedTry(self.endpoint, kind, text, took))


class Call:
    """A call to a service: tries until one is answered or nothing more may be tried."""

    def __init__(
        self, channel: CallChannel, options: CallOptions, *, idempotent: bool, hash_key: bytes | str | None = None
    ) -> None:
        self.failed_tries: list[FailedTry] = []
        """What failed so far."""
        self._channel = channel
        self._options = options
        self._idempotent = idempotent
        self._hash_key = hash_key
        self._begun = 0
        self._current: Try | None = None
        self._ids: set[str] = set()
        self._backoff = Backoff(MIN_RETRY_PAUSE, MAX_RETRY_PAUSE)
        self._why = ""
        self._deadline = channel.now() + options.deadline if options.deadline is not None else None

    def now(self) -> float:
        return self._channel.now()

    @property
    def time_left(self) -> float | None:
        """Seconds until its deadline, 0.0 once that is over; None: it has none."""
        return None if self._deadline is None else max(0.0, self._deadline - self.now())

    def deadline_error(self, attempt: Try) -> CallFailed:
        """The error to raise when the deadline comes while the answer's body is being read."""
        text = "its answer was not read to the end"
        self.failed_tries.append(FailedTry(attempt.endpoint, FailureKind.TIMEOUT, text, attempt.elapsed))
        return self._failure(self._too_late())

    def next_try(self) -> Try:
        """The next try. Raises `NoEndpoint` if there is nobody to try first, `CallFailed` when no more may be tried."""
        if self._current is not None:
            self._current.abandon()
        if self._why:
            raise self._failure(self._why)
        pick, pause = self._pick()
        timeout = self._options.try_timeout
        if self._deadline is not None:
            left = self._deadline - self.now() - pause
            if left <= 0.0:
                pick.cancel()
                raise self._failure(self._too_late())
            timeout = left if timeout is None else min(timeout, left)
        if not self._begun:
            self._channel.begin_call()
        self._begun += 1
        self._current = Try(self, pick, self._begun, timeout, pause)
        return self._current

    def plan_retry(self, kind: FailureKind) -> bool:
        """Whether there is a next try after a failure of that kind; if so it is taken from the retry budget."""
        self._why = self._objection(kind)
        return not self._why

    def _objection(self, kind: FailureKind) -> str:
        """Why not to try again; "" if nothing speaks against it."""
        if not (self._idempotent or RETRY_RULES[kind].always_retryable):
            return "the request had been sent and is not idempotent, so it may have taken effect"
        if self._begun >= self._options.tries:
            return f"at most {self._options.tries} are made"
        if self._deadline is not None and self.now() >= self._deadline:
            return self._too_late()
        if not self._channel.usable_count:
            return "no endpoint may be used any more"
        if not self._channel.take_retry():
            return "the retry budget of the service is spent, so more tries would only add to an outage"
        return ""

    def _pick(self) -> tuple[Pick, float]:
        """Somebody who was not tried; when all were, anybody after a pause."""
        pause = 0.0
        try:
            pick = self._channel.pick(self._hash_key, self._ids or None)
        except NoEndpoint as nobody:
            if not self._begun:
                raise
            self._ids.clear()
            pause = self._backoff.next(self._channel.rng)
            try:
                pick = self._channel.pick(self._hash_key)
            except NoEndpoint:
                raise self._failure(str(nobody)) from None
        self._ids.add(pick.endpoint.id)
        return pick, pause

    def _too_late(self) -> str:
        return f"its deadline of {format_duration(self._options.deadline or 0.0)} is over"

    def _failure(self, why: str) -> CallFailed:
        self._why = why
        caveat = self._channel.view_warning
        return CallFailed(self._channel.service, tuple(self.failed_tries), f"{why}; {caveat}" if caveat else why)
