"""The options of a channel and of the calls through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from adsum.balance.ejection import OutlierOptions
from adsum.balance.retry_budget import MIN_RETRIES_PER_SECOND, RETRY_RATIO
from adsum.balance.slow_start import SlowStart
from adsum.core.errors import Invalid
from adsum.core.selection import OVERPROVISIONING, PANIC_THRESHOLD, SelectionOptions

MAX_TRIES: Final = 100
"""More tries of a call are refused."""
MAX_CALL_TIME: Final = 86_400.0
"""Seconds; a longer timeout or deadline is refused."""
DEFAULT_POLICY: Final = "least_request"
"""Picks the less busy of two endpoints drawn at random: it needs no tuning, and slow endpoints get fewer calls."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The bounds of a call.

    `tries` counts all tries, the first included. `try_timeout` bounds each try and `deadline` the whole call, both in
    seconds; None leaves that to the HTTP library's own timeouts.
    """

    tries: int = 3
    try_timeout: float | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= MAX_TRIES:
            raise Invalid("tries", f"must be 1 to {MAX_TRIES}")
        for name, seconds in (("try_timeout", self.try_timeout), ("deadline", self.deadline)):
            if seconds is not None and not (isfinite(seconds) and 0.0 < seconds <= MAX_CALL_TIME):
                raise Invalid(name, f"must be above 0, at most {MAX_CALL_TIME:g} seconds")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """The options of a channel: how it chooses endpoints and retries calls.

    `zone` is the consumer's own zone ("": no preference). `outliers` None turns ejection off. `retry_ratio` is the
    number of retries allowed per call, and `retry_floor` the number allowed per second in any case. `calls` holds for
    every call that has no options of its own.
    """

    policy: str = DEFAULT_POLICY
    zone: str = ""
    panic_threshold: float = PANIC_THRESHOLD
    overprovisioning: float = OVERPROVISIONING
    slow_start: SlowStart = field(default_factory=SlowStart)
    outliers: OutlierOptions | None = field(default_factory=OutlierOptions)
    retry_ratio: float = RETRY_RATIO
    retry_floor: float = MIN_RETRIES_PER_SECOND
    calls: CallOptions = field(default_factory=CallOptions)

    @property
    def selection(self) -> SelectionOptions:
        """The options of endpoint selection. Raises `Invalid`."""
        return SelectionOptions(self.zone, self.panic_threshold, self.overprovisioning)
