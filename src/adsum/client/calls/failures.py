"""How a try fails, what that means for the next one, and how a call tells that it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.client.durations import format_duration
from adsum.core.errors import AdsumError
from adsum.core.model import Endpoint

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent again after they were sent (RFC 9110, 9.2.2)."""
RETRYABLE_STATUSES: Final = frozenset({502, 503, 504})
"""Statuses that say that this endpoint can't, but another may."""
FIRST_ERROR_STATUS: Final = 500
"""From this status on an answer counts against the endpoint."""


class FailureKind(StrEnum):
    """How a try failed."""

    CONNECT = "connect"
    """Nothing was sent: refused, no route, no such host, TLS, or no connection in time."""
    UNSENT = "unsent"
    """Nothing was sent, for a reason on our side, such as no free connection."""
    BROKEN = "broken"
    """The connection broke after sending had begun."""
    TIMEOUT = "timeout"
    """No answer in time, after sending."""
    STATUS = "status"
    """An answer that another endpoint may do better."""


class RetryRule(NamedTuple):
    """What a kind of failure means."""

    always_retryable: bool
    """Whether it is safe to try again whatever the request does: it can't have arrived."""
    counts_against_endpoint: bool
    """Whether it counts against the endpoint."""


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
    """A try that failed: where, how, and how many seconds it took."""

    endpoint: Endpoint
    kind: FailureKind
    text: str
    duration: float

    def __str__(self) -> str:
        return f"{self.endpoint.authority} ({self.endpoint.id}): {self.text or self.kind} after {format_duration(self.duration)}"


class CallFailed(AdsumError):
    """No try got an answer. `tries` says what was tried, `why` why it was not tried again."""

    def __init__(self, service: str, tries: tuple[FailedTry, ...], reason: str) -> None:
        count = "1 try" if len(tries) == 1 else f"{len(tries)} tries"
        told = "; ".join(map(str, tries))
        super().__init__(f"{service}: no answer after {count}: {told}. Not tried again: {reason}.")
        self.service = service
        self.tries = tries
        self.reason = reason
