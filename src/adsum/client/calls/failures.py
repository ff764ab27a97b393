"""The kinds of failure of a try, the retry rule of each, and the error of a call that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core.durations import format_duration
from adsum.core.errors import AdsumError
from adsum.core.model import Endpoint

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent twice (RFC 9110, 9.2.2)."""
RETRYABLE_STATUSES: Final = frozenset({502, 503, 504})
"""Statuses of an endpoint that can't serve the request; another endpoint may."""
FIRST_ERROR_STATUS: Final = 500
"""The lowest status that counts against the endpoint."""


class FailureKind(StrEnum):
    """The way in which a try failed."""

    CONNECT = "connect"
    """Nothing was sent: connection refused, no route, unknown host, TLS error, or connect timeout."""
    UNSENT = "unsent"
    """Nothing was sent, for a reason on the caller's side, such as no free connection."""
    BROKEN = "broken"
    """The connection broke after the request was sent, wholly or in part."""
    TIMEOUT = "timeout"
    """The request was sent, and no answer came in time."""
    STATUS = "status"
    """The answer has a status that another endpoint may not give."""


class RetryRule(NamedTuple):
    """The consequences of a kind of failure."""

    always_retryable: bool
    """True if a retry is safe for every request, since the request can't have arrived."""
    counts_against_endpoint: bool
    """True if the failure counts against the endpoint in load and outlier detection."""


RETRY_RULES: Final[Mapping[FailureKind, RetryRule]] = MappingProxyType(
    {
        FailureKind.CONNECT: RetryRule(always_retryable=True, counts_against_endpoint=True),
        FailureKind.UNSENT: RetryRule(always_retryable=True, counts_against_endpoint=False),
        FailureKind.BROKEN: RetryRule(always_retryable=False, counts_against_endpoint=True),
        FailureKind.TIMEOUT: RetryRule(always_retryable=False, counts_against_endpoint=True),
        FailureKind.STATUS: RetryRule(always_retryable=False, counts_against_endpoint=True),
    }
)


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A try that failed: the endpoint, the kind of failure, its reason as a clause, and its duration in seconds."""

    endpoint: Endpoint
    kind: FailureKind
    text: str
    duration: float

    def __str__(self) -> str:
        reason = self.text or self.kind
        return f"{self.endpoint.authority} ({self.endpoint.id}): {reason} after {format_duration(self.duration)}"


class CallFailed(AdsumError):
    """A call that got no answer: `tries` are the failed tries, `reason` is the reason why there was no further try."""

    def __init__(self, service: str, tries: tuple[FailedTry, ...], reason: str) -> None:
        count = "1 try" if len(tries) == 1 else f"{len(tries)} tries"
        failures = "; ".join(map(str, tries))
        super().__init__(f"{service}: no answer after {count}: {failures}. Not tried again: {reason}.")
        self.service = service
        self.tries = tries
        self.reason = reason
