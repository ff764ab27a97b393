"""Where a registrar stands: its moves as a table, and what a drain led to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where a registrar is."""

    IDLE = "idle"
    REGISTERING = "registering"
    REGISTERED = "registered"
    WAITING = "waiting"
    """A live process has our id or our place. We ask again until it is free."""
    SUPERSEDED = "superseded"
    """A later registrar of this program lists the id: it is that one's."""
    STOPPED = "stopped"


class Event(StrEnum):
    """What moves a registrar."""

    STARTED = "started"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    TAKEN = "taken"
    """The registry refused us, or lists another process under our id."""
    SUPERSEDED = "superseded"
    STOPPED = "stopped"


MOVES: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.IDLE, Event.STARTED): State.REGISTERING,
        (State.REGISTERING, Event.ACCEPTED): State.REGISTERED,
        (State.REGISTERING, Event.TAKEN): State.WAITING,
        (State.REGISTERED, Event.UNKNOWN): State.REGISTERING,
        (State.REGISTERED, Event.TAKEN): State.WAITING,
        (State.REGISTERED, Event.SUPERSEDED): State.SUPERSEDED,
        (State.WAITING, Event.ACCEPTED): State.REGISTERED,
        **{(state, Event.STOPPED): State.STOPPED for state in State},
    }
)
"""A pair that is missing changes nothing: news of a state that is over."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended. `done`: no cooperating consumer starts a new call; otherwise `why` not, in a clause.

    That speaks of the consumers that the registry is connected with: one that lost it goes on by its last view.
    `unaware` counts cooperating consumers that had not said in time that they route around us.
    """

    done: bool
    unaware: int = 0
    why: str = ""
