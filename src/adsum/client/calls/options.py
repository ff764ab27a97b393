"""What can be chosen for a channel and for the calls through it."""

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
MAX_CALL_TIME: Final = 86_400.0
DEFAULT_POLICY: Final = "least_request"
"""Two random choices, the less busy one: needs no tuning, and slow endpoints get less by themselves."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How long and how often a call tries.

    `tries` counts all, the first too. `try_timeout` bounds each try and `deadline` the whole call, in seconds; None
    leaves that to the HTTP library's own timeouts.
    """

    tries: int = 3
    try_timeout: float | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= MAX_TRIES:
            raise Invalid("tries", f"must be 1 to {MAX_TRIES}")
        for name, length in (("try_timeout", self.try_timeout), ("deadline", self.deadline)):
            if length is not None and not (isfinite(length) and 0.0 < length <= MAX_CALL_TIME):
                raise Invalid(name, f"must be above 0, at most {MAX_CALL_TIME:g} seconds")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How a channel chooses.

    `zone` is the consumer's own ("": no preference). `outliers` None ejects nobody. `retry_ratio` retries are allowed
    per first try, and `retry_floor` a second in any case.
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
        """The part that selection looks at. Raises `Invalid`."""
        return SelectionOptions(self.zone, self.panic_threshold, self.overprovisioning)
