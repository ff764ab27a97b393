"""Who may take an id or a place that is another process's. Pure.

A process is *live* while its lease is held and, if somebody elsewhere wants its id, its place answers a probe.
"""

from __future__ import annotations

from collections.abc import Set
from enum import Enum, StrEnum

from adsum.core.errors import RegistrationConflict
from adsum.core.identity import Place, ProcessIdentity
from adsum.core.model import Key, LeaseState, Listing, Registration


class Takeover(StrEnum):
    """What a registration may take from other processes."""

    USUAL = "usual"
    """An id whose holder is not live, and the place where it says that it is: it has just begun to listen there."""
    NEVER = "never"
    """Nothing that a live process has. Of a process that has been listed before: so two of them never alternate."""
    FORCE = "force"
    """Anything."""


class ClaimStrength(Enum):
    """How strong the claim of the process is that is listed."""

    NONE = "none"
    """It must give way."""
    IF_REACHABLE = "if it answers"
    """It stays if its place answers a probe."""
    HELD = "held"
    """It stays."""


class ProbeRequired(RegistrationConflict):
    """A conflict with `listing`, unless a probe shows that its place does not answer."""

    def __init__(self, problem: str, listing: Listing) -> None:
        super().__init__(problem)
        self.listing = listing


def claim_strength(listed: Listing, registration: Registration, takeover: Takeover) -> ClaimStrength:
    """How strongly the process in `listed` holds the id or the place that `registration` asks for.

    An empty holder names no process, so it never keeps another one out of its own place.
    """
    mine, theirs = registration.identity, listed.registration.identity
    if takeover is Takeover.FORCE or listed.lease is LeaseState.LAPSED or mine.holder == theirs.holder:
        return ClaimStrength.NONE
    if mine.place.host_port == theirs.place.host_port:
        # Whoever asks answers there too, so a probe would prove nothing: the lease decides.
        keeps = theirs.holder and (not mine.holder or takeover is Takeover.NEVER)
        return ClaimStrength.HELD if keeps else ClaimStrength.NONE
    if takeover is Takeover.NEVER:
        return ClaimStrength.HELD if theirs.holder else ClaimStrength.IF_REACHABLE
    return ClaimStrength.IF_REACHABLE if theirs.holder else ClaimStrength.NONE


def require_free(
    listed: Listing, registration: Registration, takeover: Takeover, unreachable: Set[ProcessIdentity]
) -> None:
    """Raises `Taken` unless the process in `listed` gives way. `unreachable` are those whose place did not answer."""
    found = claim_strength(listed, registration, takeover)
    process = listed.registration.identity
    if found is ClaimStrength.NONE or (found is ClaimStrength.IF_REACHABLE and process in unreachable):
        return
    problem = conflict_message(listed.key, process.place, registration)
    raise ProbeRequired(problem, listed) if found is ClaimStrength.IF_REACHABLE else RegistrationConflict(problem)


def conflict_message(listed: Key, place: Place, registration: Registration) -> str:
    """Why a live process, which is listed at `place`, keeps the registration out, and what to do about it."""
    asked, wanted = registration.key, registration.instance.place
    if listed == asked and place != wanted:
        problem = f"the id {asked} belongs to a living process at {place}, which {wanted} may not take it from"
        remedy = "stop that process or register under another id"
    else:
        problem = f"{asked} may not be listed at {wanted}, where another living process is listed as {listed}"
        remedy = "stop that process or use another place"
    return f"{problem}; {remedy}, or take over by force (takeover=force, on the command line --take-over)"


def is_displaced(listed: Listing, registration: Registration) -> bool:
    """Whether an instance at the place of `registration` leaves when that is listed.

    At the same place and of the same service it is another process that was there before. Of another service or scheme
    it may share the address and port, unless it has stopped renewing.
    """
    if listed.key == registration.key:
        return False
    if listed.key.service != registration.instance.service or listed.instance.place != registration.instance.place:
        return listed.lease is LeaseState.LAPSED and is_another_process(listed, registration)
    return listed.registration.identity.holder != registration.identity.holder


def is_another_process(listed: Listing, registration: Registration) -> bool:
    """Whether they are of two processes. Empty holders name none: then of two services, which seldom share a place."""
    one, other = listed.registration.identity.holder, registration.identity.holder
    return one != other or (not one and listed.key.service != registration.instance.service)


def is_successor(other: Listing, listing: Listing) -> bool:
    """Whether another process is listed in `other`, which is at the address and port of `listing`, and holds its lease.

    A listing without a lease proves nothing: nobody renews it.
    """
    if other.key == listing.key or other.lease is LeaseState.LAPSED or other.registration.ttl is None:
        return False
    return is_another_process(other, listing.registration)
