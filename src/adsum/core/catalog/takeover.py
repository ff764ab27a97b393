"""Takeover: when a process may take the id or the place of another process. Pure.

A process is *live* while its lease is held. If a process at another place requests its id, it must also answer a probe.
"""

from __future__ import annotations

from collections.abc import Set
from enum import Enum, StrEnum

from adsum.core.errors import RegistrationConflict
from adsum.core.identity import Place, ProcessIdentity
from adsum.core.model import Key, LeaseState, Listing, Registration


class Takeover(StrEnum):
    """The rights of a registration against other processes: what it may take from them."""

    USUAL = "usual"
    """An id whose holder is not live, and the place that it registers: it has just begun to listen there."""
    NEVER = "never"
    """Nothing that a live process has. A process that was listed before uses it, so that two never alternate."""
    FORCE = "force"
    """Anything."""


class ClaimStrength(Enum):
    """The strength of the listed process's claim to its id and place."""

    NONE = "none"
    """The listed process is displaced."""
    IF_REACHABLE = "if reachable"
    """The listed process stays if its place answers a probe."""
    HELD = "held"
    """The listed process stays."""


class ProbeRequired(RegistrationConflict):
    """A conflict with `listing`, unless a probe shows that its place does not answer."""

    def __init__(self, problem: str, listing: Listing) -> None:
        super().__init__(problem)
        self.listing = listing


def claim_strength(listed: Listing, registration: Registration, takeover: Takeover) -> ClaimStrength:
    """Returns how strongly the process in `listed` claims the id or the place that `registration` requests.

    An empty holder names no process, so it never keeps another process out of its own place.
    """
    new, old = registration.identity, listed.registration.identity
    if takeover is Takeover.FORCE or listed.lease is LeaseState.LAPSED or new.holder == old.holder:
        return ClaimStrength.NONE
    if new.place.host_port == old.place.host_port:
        # The new process answers at this place, too, so a probe would prove nothing: the lease decides.
        keeps = old.holder and (not new.holder or takeover is Takeover.NEVER)
        return ClaimStrength.HELD if keeps else ClaimStrength.NONE
    if takeover is Takeover.NEVER:
        return ClaimStrength.HELD if old.holder else ClaimStrength.IF_REACHABLE
    return ClaimStrength.IF_REACHABLE if old.holder else ClaimStrength.NONE


def require_free(
    listed: Listing, registration: Registration, takeover: Takeover, unreachable: Set[ProcessIdentity]
) -> None:
    """Raises `RegistrationConflict` or `ProbeRequired` unless the process in `listed` is displaced.

    `unreachable` holds the processes whose place did not answer a probe.
    """
    claim = claim_strength(listed, registration, takeover)
    process = listed.registration.identity
    if claim is ClaimStrength.NONE or (claim is ClaimStrength.IF_REACHABLE and process in unreachable):
        return
    problem = conflict_message(listed.key, process.place, registration)
    raise ProbeRequired(problem, listed) if claim is ClaimStrength.IF_REACHABLE else RegistrationConflict(problem)


def conflict_message(listed: Key, place: Place, registration: Registration) -> str:
    """Returns why the live process listed at `place` prevents the registration, and what to do about it."""
    key, requested = registration.key, registration.instance.place
    if listed == key and place != requested:
        problem = f"the id {key} belongs to a live process at {place}, and a process at {requested} can't take it"
        remedy = "stop that process or register under another id"
    else:
        problem = f"{key} can't be listed at {requested}: another live process is listed there as {listed}"
        remedy = "stop that process or use another place"
    return f"{problem}; {remedy}, or take over by force (takeover=force, on the command line --take-over)"


def successor_name(successor: Key, listing: Listing) -> str:
    """Returns the successor of a listing, as the history of the listing names it.

    Readers of the listing may not read another service, so the history of an instance with an owner does not name it.
    """
    if listing.owner and successor.service != listing.key.service:
        return "an instance of another service"
    return str(successor)


def is_displaced(listed: Listing, registration: Registration) -> bool:
    """Returns whether `registration` removes a listed instance at the same address and port.

    It removes one of the same service, scheme and place that another holder registered. An instance of another service
    or scheme may share the address and port, unless its lease has lapsed.
    """
    if listed.key == registration.key:
        return False
    if listed.key.service != registration.instance.service or listed.instance.place != registration.instance.place:
        return listed.lease is LeaseState.LAPSED and is_another_process(listed, registration)
    return listed.registration.identity.holder != registration.identity.holder


def is_another_process(listed: Listing, registration: Registration) -> bool:
    """Returns whether the listing and the registration are of two processes.

    Two empty holders count as two processes if the services differ: two services seldom share one process.
    """
    old, new = listed.registration.identity.holder, registration.identity.holder
    return old != new or (not old and listed.key.service != registration.instance.service)


def is_successor(other: Listing, listing: Listing) -> bool:
    """Returns whether `other` is of another process that holds its lease, at the address and port of `listing`.

    The caller finds `other` by address and port. A listing without a lease is no successor: no renewal shows that it
    lives. An instance with an owner has successors of this owner only: otherwise whoever may register anything could
    register at its place, and so end its grace.
    """
    if other.key == listing.key or other.lease is LeaseState.LAPSED or other.registration.ttl is None:
        return False
    if listing.owner not in ("", other.owner):
        return False
    return is_another_process(other, listing.registration)
