"""The rate limit of requests on one xDS stream."""

from __future__ import annotations

from adsum.core.token_bucket import TokenBucket
from adsum.dialects.xds.bounds import REQUEST_BURST, REQUESTS_PER_SECOND


class RequestRate(TokenBucket):
    """Allows `REQUEST_BURST` requests at once, then `REQUESTS_PER_SECOND`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(REQUESTS_PER_SECOND, REQUEST_BURST)
