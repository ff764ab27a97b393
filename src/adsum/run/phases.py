"""The life of a wrapped program, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ProgramPhase(StrEnum):
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


class ProgramEvent(StrEnum):
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


MOVES: Final[Mapping[tuple[ProgramPhase, ProgramEvent], ProgramPhase]] = MappingProxyType(
    {
        (ProgramPhase.STARTING, ProgramEvent.ANSWERED): ProgramPhase.SERVING,
        (ProgramPhase.STARTING, ProgramEvent.LATE): ProgramPhase.STOPPING,
        (ProgramPhase.STARTING, ProgramEvent.TOLD): ProgramPhase.STOPPING,
        (ProgramPhase.SERVING, ProgramEvent.TOLD): ProgramPhase.DRAINING,
        (ProgramPhase.DRAINING, ProgramEvent.TOLD): ProgramPhase.STOPPING,
        (ProgramPhase.DRAINING, ProgramEvent.DRAINED): ProgramPhase.STOPPING,
        (ProgramPhase.STOPPING, ProgramEvent.TOLD): ProgramPhase.KILLING,
        (ProgramPhase.STOPPING, ProgramEvent.OVERDUE): ProgramPhase.KILLING,
        **{(phase, ProgramEvent.DIED): ProgramPhase.ENDED for phase in ProgramPhase if phase is not ProgramPhase.ENDED},
    }
)
"""A pair that is missing changes nothing: news of a phase that is over."""
