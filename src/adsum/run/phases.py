"""The phases of a wrapped program and the events that change them, as a state table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ProgramPhase(StrEnum):
    """The phase of a wrapped program."""

    STARTING = "starting"
    """The program runs but has not passed its checks yet; it is not registered."""
    SERVING = "serving"
    """The program is registered, or will be as soon as a registry answers."""
    DRAINING = "draining"
    """A signal to end came; consumers stop calling the program before it gets the signal."""
    STOPPING = "stopping"
    """The program has received the signal."""
    KILLING = "killing"
    """The program did not end in time and is being killed."""
    ENDED = "ended"


class ProgramEvent(StrEnum):
    """An event that may change the phase."""

    READY = "ready"
    """The program passes its checks."""
    NOT_READY = "not-ready"
    """The program has not passed its checks in time."""
    SIGNALLED = "signalled"
    """SIGTERM or SIGINT came; each further one skips the current step."""
    DRAINED = "drained"
    NOT_STOPPED = "not-stopped"
    """The program has not ended in time."""
    EXITED = "exited"


MOVES: Final[Mapping[tuple[ProgramPhase, ProgramEvent], ProgramPhase]] = MappingProxyType(
    {
        (ProgramPhase.STARTING, ProgramEvent.READY): ProgramPhase.SERVING,
        (ProgramPhase.STARTING, ProgramEvent.NOT_READY): ProgramPhase.STOPPING,
        (ProgramPhase.STARTING, ProgramEvent.SIGNALLED): ProgramPhase.STOPPING,
        (ProgramPhase.SERVING, ProgramEvent.SIGNALLED): ProgramPhase.DRAINING,
        (ProgramPhase.DRAINING, ProgramEvent.SIGNALLED): ProgramPhase.STOPPING,
        (ProgramPhase.DRAINING, ProgramEvent.DRAINED): ProgramPhase.STOPPING,
        (ProgramPhase.STOPPING, ProgramEvent.SIGNALLED): ProgramPhase.KILLING,
        (ProgramPhase.STOPPING, ProgramEvent.NOT_STOPPED): ProgramPhase.KILLING,
        **{
            (phase, ProgramEvent.EXITED): ProgramPhase.ENDED
            for phase in ProgramPhase
            if phase is not ProgramPhase.ENDED
        },
    }
)
"""(Phase, event) → next phase. An event of a pair that is missing is ignored: it belongs to a phase that is over."""
