"""The states of a registrar, its moves as a table, and the result of a drain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from adsum.wire import ConsumerView, WriteResult

MAX_NAMED_CONSUMERS: Final = 10
"""The number of consumers that a message names; further ones are only counted."""


class RegistrarState(StrEnum):
    """The state of a registrar."""

    IDLE = "idle"
    REGISTERING = "registering"
    REGISTERED = "registered"
    WAITING = "waiting"
    """A live process has the id or the place. The registrar tries again until it is free."""
    SUPERSEDED = "superseded"
    """A later registrar of this program has the id."""
    STOPPED = "stopped"


class RegistrarEvent(StrEnum):
    """An event that moves a registrar to another state."""

    STARTED = "started"
    ACCEPTED = "accepted"
    FORGOTTEN = "forgotten"
    """The registry no longer lists the instance."""
    TAKEN = "taken"
    """The registry refused the registration in favour of another process, or lists another process under the id."""
    SUPERSEDED = "superseded"
    """A later registrar of this program has the id."""
    ADDRESS_CHANGED = "address-changed"
    """This host has another address now."""
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
"""A pair that is not in the table changes nothing: the event belongs to a state that is over."""


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The result of a drain. `done`: no cooperating consumer starts a new call; otherwise `reason` is a clause.

    `unacknowledged` counts the cooperating consumers that had not acknowledged in time, and `waiting` has some of them.
    `lost_count` counts the consumers that the drain did not wait for, since they had been silent for too long, and
    `lost` has some of them. Lost consumers may still call, by the last view that they have.
    """

    done: bool
    unacknowledged: int = 0
    reason: str = ""
    waiting: tuple[ConsumerView, ...] = ()
    lost: tuple[ConsumerView, ...] = ()
    lost_count: int = 0

    @classmethod
    def from_answer(cls, written: WriteResult) -> DrainResult:
        """Returns the result in the registry's answer to a drain that waited."""
        waiting, lost = tuple(written.waiting), tuple(written.lost)
        reason = ""
        if written.unacknowledged:
            consumers = "1 consumer has" if written.unacknowledged == 1 else f"{written.unacknowledged} consumers have"
            reason = f"{consumers} not confirmed in time{_list(waiting, written.unacknowledged)}"
        return cls(
            done=not written.unacknowledged,
            unacknowledged=written.unacknowledged,
            reason=reason,
            waiting=waiting,
            lost=lost,
            lost_count=max(written.lost_count, len(lost)),
        )

    def __str__(self) -> str:
        """Returns a clause for logs that names the consumers that have not confirmed and those that were lost."""
        clause = self.reason or "no cooperating consumer calls any more"
        if not self.lost_count:
            return clause
        consumers = "1 lost consumer was" if self.lost_count == 1 else f"{self.lost_count} lost consumers were"
        return f"{clause}; {consumers} not waited for{_list(self.lost, self.lost_count)}"


def _list(consumers: Sequence[ConsumerView], count: int) -> str:
    """Returns `: checkout[4711]@web1 at 10.0.0.7 (no heartbeat for 8 s), …`; "" for no consumers."""
    if not consumers:
        return ""
    names = [_describe(consumer) for consumer in consumers[:MAX_NAMED_CONSUMERS]]
    more = [f"and {count - len(names)} more"] if count > len(names) else []
    return f": {', '.join([*names, *more])}"


def _describe(consumer: ConsumerView) -> str:
    name = consumer.name or consumer.id or "a consumer without a name"
    address = f" at {consumer.address}" if consumer.address else ""
    return f"{name}{address} ({consumer.reason})" if consumer.reason else f"{name}{address}"
