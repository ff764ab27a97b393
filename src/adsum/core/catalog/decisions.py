"""What a request changes, decided on a snapshot: request + snapshot → changes. Pure, and idempotent by construction.

An empty answer means that nothing changes: what was asked for is already so. Nothing here waits, commits or tells;
the registry does (see `adsum.registry`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from adsum.core.catalog import takeover as takeovers
from adsum.core.catalog.changes import Change, forget_service
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import CatalogFull, LeaseLost, ServiceNotEmpty, UnknownInstance
from adsum.core.identity import ProcessIdentity
from adsum.core.model import Key, LeaseState, Listing, Override, Registration, Status, freeze_statuses
from adsum.core.provenance import Cause, Provenance

MAX_INSTANCES: Final = 1_000_000
"""How many instances one catalog lists; past it new ones are refused, listed ones may still change."""
MAX_SERVICES: Final = 25_000
"""How many services one catalog knows, those without an instance too; past it instances of others are refused. Gateways
name all of them when they connect, so that `dialects.xds.bounds.MAX_NAMES` depends on it."""

Decision = Callable[[CatalogView], list[Change]]
"""A request waiting for the freshest basis to be decided on."""

REGISTRY_ACTOR: Final = "registry"
"""The actor of changes that nobody asked for: leases that lapse, checks that turn."""

_CHECK_CAUSES: Final[Mapping[Status, Cause]] = MappingProxyType(
    {
        Status.PASSING: Cause.CHECK_PASSING,
        Status.WARNING: Cause.CHECK_WARNING,
        Status.CRITICAL: Cause.CHECK_CRITICAL,
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, when on the wall clock, and from which address, if that is not the actor (see `Provenance`)."""

    actor: str
    at: float
    peer: str = ""

    def provenance(self, cause: Cause, reason: str = "") -> Provenance:
        return Provenance(cause, self.actor, reason, self.at, self.peer)


def register(
    registration: Registration,
    caller: Caller,
    takeover: Takeover = Takeover.USUAL,
    unreachable: Set[ProcessIdentity] = frozenset(),
) -> Decision:
    """List the instance. The same registration again changes nothing but a lapsed lease, and never resets health.

    `takeover` says what may be taken from other processes, and `unreachable` whose place did not answer a probe. Instances
    of other processes that were at its place before leave. Raises `CatalogFull` and `Taken`.
    """

    def decide(basis: CatalogView) -> list[Change]:
        before = basis.find(registration.key)
        if before is not None:
            if before.registration == registration:
                return _hold_again(before, caller)
            takeovers.require_free(before, registration, takeover, unreachable)
        others = basis.listings_at(registration.instance.place.host_port)
        leaving = [each for each in others if takeovers.is_displaced(each, registration)]
        for each in leaving:
            takeovers.require_free(each, registration, takeover, unreachable)
        if before is None:
            _must_have_room(basis, registration.key.service)
        superseded = [_superseded(each, registration, caller) for each in leaving]
        listed = _list_again(before, registration, caller) if before else _list_anew(registration, caller)
        return [*superseded, listed]

    return decide


def _must_have_room(basis: CatalogView, service: str) -> None:
    """There is room for one more instance of that service. Raises `CatalogFull`."""
    if basis.instance_count >= MAX_INSTANCES:
        raise CatalogFull(f"the catalog lists its most, {MAX_INSTANCES} instances")
    if basis.service_count_with(service) > MAX_SERVICES:
        raise CatalogFull(f"the catalog knows its most, {MAX_SERVICES} services")


def _list_anew(registration: Registration, caller: Caller) -> Change:
    why = caller.provenance(Cause.REGISTERED)
    return _changed(Listing(registration, why, checks=freeze_statuses(_starting(registration)), since=caller.at))


def _list_again(before: Listing, registration: Registration, caller: Caller) -> Change:
    """Evidence is kept where it still speaks of the same thing: the same check of the same process."""
    old = before.registration
    checks = _starting(registration)
    if old.identity == registration.identity:
        kept = {check.name: before.checks[check.name] for check in old.checks if check in registration.checks}
        checks.update(kept)
    override = before.override
    if override is not None and override.holder is not None and override.holder != registration.holder:
        override = None
    after = replace(
        before,
        registration=registration,
        lease=LeaseState.HELD,
        checks=freeze_statuses(checks),
        override=override,
    )
    return _changed(_explained(before, after, caller.provenance(Cause.REREGISTERED, _taken_over(old, registration))))


def _starting(registration: Registration) -> dict[str, Status]:
    return {check.name: Status.STARTING for check in registration.checks}


def _taken_over(old: Registration, new: Registration) -> str:
    """How the process changed, for the history; "" if it did not."""
    before, after = old.identity, new.identity
    moved = f"at {after.place} instead of {before.place}"
    if before.holder != after.holder:
        return f"by another process, {moved}" if before.place != after.place else f"by another process at {after.place}"
    return moved if before.place != after.place else ""


def _superseded(listing: Listing, winner: Registration, caller: Caller) -> Change:
    reason = f"another process registered at {listing.instance.place}, as {winner.key}"
    return Change(listing.key, None, caller.provenance(Cause.SUPERSEDED, reason))


def deregister(key: Key, holder: str, reason: str, caller: Caller) -> Decision:
    """Take the instance out. One that is not there is out already.

    Raises `LeaseLost` if `holder` is given and is no longer the lease's.
    """

    def decide(basis: CatalogView) -> list[Change]:
        before = basis.find(key)
        if before is None:
            return []
        _must_hold(before, holder)
        return [Change(key, None, caller.provenance(Cause.DEREGISTERED, reason))]

    return decide


def forget(service: str, reason: str, caller: Caller) -> Decision:
    """The service is no longer known. One that never was is forgotten already. Raises `ServiceNotEmpty`."""

    def decide(basis: CatalogView) -> list[Change]:
        listed = basis.listed_count(service)
        if listed:
            raise ServiceNotEmpty(service, listed)
        return [] if listed is None else [forget_service(service, caller.provenance(Cause.FORGOTTEN, reason))]

    return decide


def renew(key: Key, caller: Caller) -> Decision:
    """The lease is kept again after it lapsed. Raises `UnknownInstance`."""

    def decide(basis: CatalogView) -> list[Change]:
        return _hold_again(_listed(basis, key), caller)

    return decide


def _hold_again(before: Listing, caller: Caller) -> list[Change]:
    if before.lease is LeaseState.HELD:
        return []
    after = replace(before, lease=LeaseState.HELD)
    return [_changed(_explained(before, after, caller.provenance(Cause.LEASE_RENEWED)))]


def lapse(key: Key, reason: str, caller: Caller, *, abandoned: bool = False) -> Decision:
    """The lease's deadline passed: listed as critical from now on.

    `abandoned`: it was not renewed since another instance came to its place. If that one still holds its lease, there is
    nobody to come back, and the instance leaves at once.
    """

    def decide(basis: CatalogView) -> list[Change]:
        before = basis.find(key)
        if before is None or before.lease is LeaseState.LAPSED:
            return []
        if abandoned and (successors := successors_of(before, basis)):
            return [_left_to(successors[0], before, caller)]
        after = replace(before, lease=LeaseState.LAPSED)
        return [_changed(_explained(before, after, caller.provenance(Cause.LEASE_LAPSED, reason)))]

    return decide


def expire(key: Key, reason: str, caller: Caller) -> Decision:
    """The grace after a lapse is over: the instance leaves. One renewed meanwhile stays."""

    def decide(basis: CatalogView) -> list[Change]:
        before = basis.find(key)
        if before is None or before.lease is LeaseState.HELD:
            return []
        if successors := successors_of(before, basis):
            return [_left_to(successors[0], before, caller)]
        return [Change(key, None, caller.provenance(Cause.LEASE_EXPIRED, reason))]

    return decide


def successors_of(listing: Listing, basis: CatalogView) -> list[Listing]:
    """Other processes that hold their leases at the address and port of the instance."""
    return [
        each for each in basis.listings_at(listing.instance.place.host_port) if takeovers.is_successor(each, listing)
    ]


def _left_to(successor: Listing, listing: Listing, caller: Caller) -> Change:
    reason = f"its lease lapsed, and {successor.key} is at {successor.instance.place} now"
    return Change(listing.key, None, caller.provenance(Cause.SUPERSEDED, reason))


def record_check(
    key: Key, check: str, status: Status, note: str, caller: Caller, process: ProcessIdentity | None = None
) -> Decision:
    """A check stands differently now. A check that the instance no longer has says nothing.

    `process` is the one that was probed: of another one at its id it says nothing either. None: whoever is listed.
    """

    def decide(basis: CatalogView) -> list[Change]:
        before = basis.find(key)
        if before is None or check not in before.checks or before.checks[check] is status:
            return []
        if process is not None and before.registration.identity != process:
            return []
        after = replace(before, checks=freeze_statuses({**before.checks, check: status}))
        reason = f"{check}: {note}" if note else check
        return [_changed(_explained(before, after, caller.provenance(_CHECK_CAUSES[status], reason)))]

    return decide


def set_override(key: Key, override: Override, holder: str, caller: Caller) -> Decision:
    """Declare a status that outranks evidence; again, one with a length begins anew.

    Raises `UnknownInstance` and `LeaseLost`.
    """

    def decide(basis: CatalogView) -> list[Change]:
        before = _listed(basis, key)
        _must_hold(before, holder)
        endless = override.length is None
        if before.override == (replace(override, at=_at(before.override)) if endless else override):
            return []
        cause = Cause.DRAINED if override.status is Status.DRAINING else Cause.MAINTENANCE
        after = replace(before, override=override)
        return [_changed(_explained(before, after, caller.provenance(cause, override.reason)))]

    return decide


def clear_override(key: Key, reason: str, caller: Caller) -> Decision:
    """Let evidence speak again. Raises `UnknownInstance`."""
    return _cleared(key, None, caller.provenance(Cause.RESUMED, reason))


def expire_override(key: Key, override: Override, caller: Caller) -> Decision:
    """That very override has lasted its length; a later one stays."""
    return _cleared(key, override, caller.provenance(Cause.OVERRIDE_EXPIRED, override.reason))


def _cleared(key: Key, only: Override | None, why: Provenance) -> Decision:
    def decide(basis: CatalogView) -> list[Change]:
        before = basis.find(key) if only else _listed(basis, key)
        if before is None or before.override is None or (only is not None and before.override != only):
            return []
        return [_changed(_explained(before, replace(before, override=None), why))]

    return decide


def _at(override: Override | None) -> float:
    return override.at if override is not None else 0.0


def _listed(basis: CatalogView, key: Key) -> Listing:
    listing = basis.find(key)
    if listing is None:
        raise UnknownInstance(key.service, key.id)
    return listing


def _must_hold(listing: Listing, holder: str) -> None:
    """Nobody's claim is everybody's: an operator needs no lease."""
    if holder and listing.registration.holder != holder:
        raise LeaseLost(*listing.key)


def _explained(before: Listing, after: Listing, why: Provenance) -> Listing:
    """`since` moves only with the status."""
    return replace(after, provenance=why, since=before.since if after.status is before.status else why.at)


def _changed(listing: Listing) -> Change:
    return Change(listing.key, listing, listing.provenance)
