"""Where a registrar stands: its moves as a table, and what a drain led to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from adsum.wire import ConsumerView, WriteResult

MAX_NAMED_CONSUMERS: Final = 10
"""Consumers that a sentence names; it only counts the others."""


class RegistrarState(StrEnum):
    """Where a registrar is."""

    IDLE = "idle"
    REGISTERING = "registering"
    REGISTERED = "registered"
    WAITING = "waiting"
    """A live process has our id or our place. We ask again until it is free."""
    SUPERSEDED = "superseded"
    """A later registrar of this program lists the id: it is that one's."""
    STOPPED = "stopped"


class RegistrarEvent(StrEnum):
    """What moves a registrar."""

    STARTED = "started"
    ACCEPTED = "accepted"
    FORGOTTEN = "unknown"
    TAKEN = "taken"
    """The registry refused us, or lists another process under our id."""
    SUPERSEDED = "superseded"
    ADDRESS_CHANGED = "moved"
    """Our host has another address."""
    STOPPED = "stopped"


MOVES: Final[Mapping[tuple[RegistrarState, RegistrarEvent], RegistrarState]] = MappingProxyType(
    {
        (RegistrarState.IDLE, RegistrarEvent.STARTED): RegistrarState.REGISTERING,
        (RegistrarState.REGISTERING, RegistrarEvent.ACCEPTED): RegistrarState.REGISTERED,
        (RegistrarState.REGISTERING, RegistrarEvent.TAKEN): RegistrarState.WAITING,
        (RegistrarState.REGISTERED, RegistrarEvent.FORGOTTEN): RegistrarState.REGISTERING,
        (RegistrarState.REGISTERED, RegistrarEvent.TAKEN): RegistrarState.WAITING,
        (RegistrarState.REGISTERED, RegistrarEvent.ADDRESS_CHANGED): RegistrarState.REGISTERING,
        (RegistrarState.REGISTERED, RegistrarEvent.SUPERSEDED): RegistrarState.SUPERSEDED,
        (RegistrarState.WAITING, RegistrarEvent.ACCEPTED): RegistrarState.REGISTERED,
        **{(state, RegistrarEvent.STOPPED): RegistrarState.STOPPED for state in RegistrarState},
    }
)
"""A pair that is missing changes nothing: news of a state that is over."""


@dataclass(frozen=True, slots=True)
class DrainResult:
    """How a drain ended. `done`: no cooperating consumer starts a new call; otherwise `why` not, in a clause.

    `unacknowledged` counts the cooperating consumers that had not confirmed in time, and `waiting` names some of them. `lost`
    names some of the consumers that were not waited for, since they had been silent for too long; `lost_count` counts
    them. They may still call, by the last view that they have.
    """

    done: bool
    unacknowledged: int = 0
    reason: str = ""
    waiting: tuple[ConsumerView, ...] = ()
    lost: tuple[ConsumerView, ...] = ()
    lost_count: int = 0

    @classmethod
    def from_answer(cls, written: WriteResult) -> DrainResult:
        """What the answer to a drain that was waited for means."""
        waiting, lost = tuple(written.waiting), tuple(written.lost)
        why = ""
        if written.unacknowledged:
            consumers = "1 consumer has" if written.unacknowledged == 1 else f"{written.unacknowledged} consumers have"
            why = f"{consumers} not confirmed in time{_named(waiting, written.unacknowledged)}"
        return cls(
            not written.unacknowledged, written.unacknowledged, why, waiting, lost, max(written.lost_count, len(lost))
        )

    def __str__(self) -> str:
        """A clause for a log, which names who has not confirmed and who was lost."""
        clause = self.reason or "no cooperating consumer calls any more"
        if not self.lost_count:
            return clause
        consumers = "1 lost consumer was" if self.lost_count == 1 else f"{self.lost_count} lost consumers were"
        return f"{clause}; {consumers} not waited for{_named(self.lost, self.lost_count)}"


def _named(consumers: Sequence[ConsumerView], count: int) -> str:
    """`: checkout[4711]@web1 at 10.0.0.7 (no heartbeat for 8 s), …`; "" if nobody is named."""
    if not consumers:
        return ""
    names = [_name(consumer) for consumer in consumers[:MAX_NAMED_CONSUMERS]]
    more = [f"and {count - len(names)} more"] if count > len(names) else []
    return f": {', '.join([*names, *more])}"


def _name(consumer: ConsumerView) -> str:
    name = consumer.name or consumer.id or "a consumer without a name"
    at = f" at {consumer.address}" if consumer.address else ""
    return f"{name}{at} ({consumer.reason})" if consumer.reason else f"{name}{at}"
