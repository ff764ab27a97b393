"""The life of a wrapped program, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Phase(StrEnum):
    """Where it is."""

    STARTING = "starting"
    """Running, but it has not answered yet: not listed."""
    SERVING = "serving"
    """Listed, or about to be once a registry answers."""
    DRAINING = "draining"
    """Told to end: callers are let go before the program is."""
    STOPPING = "stopping"
    """The program has been told."""
    KILLING = "killing"
    """It did not listen."""
    ENDED = "ended"


class Event(StrEnum):
    """What moves it on."""

    ANSWERED = "answered"
    LATE = "late"
    """It has not answered in time."""
    TOLD = "told"
    """SIGTERM or SIGINT came; again means: quicker."""
    DRAINED = "drained"
    OVERDUE = "overdue"
    """It has not ended in time."""
    DIED = "died"


MOVES: Final[Mapping[tuple[Phase, Event], Phase]] = MappingProxyType(
    {
        (Phase.STARTING, Event.ANSWERED): Phase.SERVING,
        (Phase.STARTING, Event.LATE): Phase.STOPPING,
        (Phase.STARTING, Event.TOLD): Phase.STOPPING,
        (Phase.SERVING, Event.TOLD): Phase.DRAINING,
        (Phase.DRAINING, Event.TOLD): Phase.STOPPING,
        (Phase.DRAINING, Event.DRAINED): Phase.STOPPING,
        (Phase.STOPPING, Event.TOLD): Phase.KILLING,
        (Phase.STOPPING, Event.OVERDUE): Phase.KILLING,
        **{(phase, Event.DIED): Phase.ENDED for phase in Phase if phase is not Phase.ENDED},
    }
)
"""A pair that is missing changes nothing: news of a phase that is over."""
