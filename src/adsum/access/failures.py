"""Slows down callers that send wrong credentials again and again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from adsum.core.token_bucket import TokenBucket

FAILURE_RATE: Final = 1.0
"""Wrong credentials per second that one address may send without being slowed down."""
FAILURE_BURST: Final = 10.0
"""Wrong credentials that one address may send at once: a fleet may start with an old token behind one address."""
MAX_FAILURE_DELAY: Final = 5.0
"""Seconds by which the answer to a wrong credential is delayed, at most."""
MAX_FAILING_ADDRESSES: Final = 10_000
"""Addresses that are remembered. Past it the one that failed longest ago is forgotten, so its delay begins anew."""


class FailureLimiter:
    """Counts wrong credentials by address, and says for how long to delay the answer. Time is monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def delay(self, address: str, now: float) -> float:
        """Counts a wrong credential. Returns the seconds by which to delay the answer."""
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(FAILURE_RATE, FAILURE_BURST)
            if len(self._buckets) > MAX_FAILING_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return min(MAX_FAILURE_DELAY, bucket.delay(now))
