"""The rate limit of requests on one xDS stream."""

from __future__ import annotations

from typing import Final

from adsum.core.token_bucket import TokenBucket

REQUESTS_PER_SECOND: Final = 1_000
"""Requests a second that a stream may send for long; past it the next request is read later."""
REQUEST_BURST: Final = 2_000
"""Requests that a stream may send at once before that rate applies."""


class RequestRate(TokenBucket):
    """Allows `REQUEST_BURST` requests at once, then `REQUESTS_PER_SECOND`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(REQUESTS_PER_SECOND, REQUEST_BURST)
