"""Decisions on the requests of clients: request and snapshot in, changes out.

A decision is pure and idempotent. An empty list of changes means that the catalog is already as requested. The registry
(`adsum.registry`) decides on the newest snapshot and commits the changes. `observations` decides on what the keeper
observes.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from adsum.core.access import ownership
from adsum.core.access.principal import REGISTRY, Principal
from adsum.core.access.scopes import Right
from adsum.core.catalog import takeover as takeovers
from adsum.core.catalog.changes import Change, forget_service
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import CatalogFull, Forbidden, LeaseLost, ServiceNotEmpty, UnknownInstance
from adsum.core.identity import ProcessIdentity
from adsum.core.model import Key, LeaseState, Listing, Override, Registration, Status, freeze_statuses
from adsum.core.provenance import Cause, Provenance

MAX_INSTANCES: Final = 1_000_000
"""Instances that a catalog lists. Past it new instances are refused; listed ones may still change."""
MAX_SERVICES: Final = 25_000
"""Services that a catalog knows, including those without an instance. Past it instances of new services are refused.
A gateway names all services when it connects, so the xDS dialect's `MAX_GATEWAY_NAMES` depends on this bound."""

Decision = Callable[[CatalogView], list[Change]]
"""A request that waits to be decided on the newest view of the catalog."""


class Caller(Struct, frozen=True, gc=False):
    """The party that a request comes from, the actor to record for it, and the wall-clock time.

    `peer` is the address that the request came from. `claimed` is the actor that the request named without proof.
    """

    actor: str
    at: float
    peer: str = ""
    claimed: str = ""
    principal: Principal = REGISTRY

    def provenance(self, cause: Cause, reason: str = "") -> Provenance:
        return Provenance(cause, self.actor, reason, self.at, self.peer, self.claimed)


def register(
    registration: Registration,
    caller: Caller,
    takeover: Takeover = Takeover.USUAL,
    unreachable: Set[ProcessIdentity] = frozenset(),
) -> Decision:
    """Lists the instance. The same registration again only renews a lapsed lease; it never resets health.

    `takeover` defines what the registration may take from other processes. `unreachable` holds the processes whose
    place did not answer a probe. Instances of other processes that were at its place are removed. The caller becomes
    the owner of the instance. Raises `NotOwner` if the id, or the place in this service, belongs to another caller, and
    `CatalogFull`, `RegistrationConflict` and `ProbeRequired`.
    """
    key, host_port = registration.key, registration.instance.host_port

    def decide(view: CatalogView) -> list[Change]:
        before = view.find(key)
        if before is not None:
            ownership.require_change(caller.principal, before)
            if before.registration == registration and (before.owner or not caller.principal.owner):
                return hold_lease(before, caller)
            if before.registration != registration:
                takeovers.require_free(before, registration, takeover, unreachable)
        others = view.listings_at(host_port)
        if before is None and not others:  # The usual case.
            _require_room(view, key.service)
            return [_registered(key, registration, caller)]
        displaced = [other for other in others if _displaces(registration, other, caller.principal)]
        for other in displaced:
            takeovers.require_free(other, registration, takeover, unreachable)
        if before is None:
            _require_room(view, key.service)
        superseded = [_superseded(other, registration, caller) for other in displaced]
        listed = _reregistered(before, registration, caller) if before else _registered(key, registration, caller)
        return [*superseded, listed]

    return decide


def _displaces(registration: Registration, other: Listing, principal: Principal) -> bool:
    """Returns whether the registration removes another listing at its address and port.

    Raises `NotOwner` if another caller has the address and port in this service, whatever the holder: a second listing
    there would get the calls that a drain of the first one ends. A listing of another service stays if the caller may
    not change it. It expires by itself, since its lease has lapsed, and the caller does not learn that it exists.
    """
    if other.key == registration.key:
        return False
    if other.key.service == registration.key.service:
        ownership.require_change(principal, other)
        return takeovers.is_displaced(other, registration)
    return takeovers.is_displaced(other, registration) and ownership.may_change(principal, other)


def _require_room(view: CatalogView, service: str) -> None:
    """Raises `CatalogFull` unless the catalog takes one more instance of the service."""
    if view.instance_count >= MAX_INSTANCES:
        raise CatalogFull(f"the catalog already lists {MAX_INSTANCES} instances, its maximum")
    if view.service_count_with(service) > MAX_SERVICES:
        raise CatalogFull(f"the catalog already knows {MAX_SERVICES} services, its maximum")


def _registered(key: Key, registration: Registration, caller: Caller) -> Change:
    provenance = caller.provenance(Cause.REGISTERED)
    listing = Listing(
        registration,
        provenance,
        checks=freeze_statuses(_starting(registration)),
        since=caller.at,
        owner=caller.principal.owner,
    )
    return Change(key, listing, provenance)


def _reregistered(before: Listing, registration: Registration, caller: Caller) -> Change:
    """Replaces the registration. The status of a check stays if the check and the process are the same as before."""
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
        owner=caller.principal.owner or before.owner,
    )
    provenance = caller.provenance(Cause.REREGISTERED, _process_change(old, registration))
    return listing_change(with_provenance(before, after, provenance))


def _starting(registration: Registration) -> dict[str, Status]:
    return {check.name: Status.STARTING for check in registration.checks}


def _process_change(old: Registration, new: Registration) -> str:
    """Describes how the process changed, for the history; "" if it did not."""
    before, after = old.identity, new.identity
    moved = f"at {after.place} instead of {before.place}"
    if before.holder != after.holder:
        return f"by another process, {moved}" if before.place != after.place else f"by another process at {after.place}"
    return moved if before.place != after.place else ""


def _superseded(listing: Listing, winner: Registration, caller: Caller) -> Change:
    name = takeovers.successor_name(winner.key, listing)
    reason = f"another process registered at {listing.instance.place}, as {name}"
    return Change(listing.key, None, caller.provenance(Cause.SUPERSEDED, reason))


def deregister(key: Key, holder: str, reason: str, caller: Caller) -> Decision:
    """Removes the instance. An instance that is not listed is no error.

    Raises `NotOwner`, and `LeaseLost` if `holder` is given and no longer holds the lease.
    """

    def decide(view: CatalogView) -> list[Change]:
        before = view.find(key)
        if before is None:
            return []
        ownership.require_change(caller.principal, before)
        _require_holder(before, holder)
        return [Change(key, None, caller.provenance(Cause.DEREGISTERED, reason))]

    return decide


def forget(service: str, reason: str, caller: Caller) -> Decision:
    """Forgets a service without instances. A service that is not known is no error. Raises `ServiceNotEmpty`."""

    def decide(view: CatalogView) -> list[Change]:
        listed = view.listed_count(service)
        if listed:
            raise ServiceNotEmpty(service, listed)
        return [] if listed is None else [forget_service(service, caller.provenance(Cause.FORGOTTEN, reason))]

    return decide


def set_override(key: Key, override: Override, holder: str, caller: Caller) -> Decision:
    """Declares a status that outranks evidence. An override with a length starts again each time that it is set.

    The override of another author stays, unless the caller may operate the service: the instance takes no calls either
    way. Raises `UnknownInstance`, `NotOwner`, and `LeaseLost` if `holder` is given and no longer holds the lease.
    """

    def decide(view: CatalogView) -> list[Change]:
        before = require_listed(view, key)
        ownership.require_change(caller.principal, before)
        _require_holder(before, holder)
        if not _may_replace_override(before, caller):
            return []
        endless = override.length is None
        if before.override == (replace(override, at=_declared_at(before.override)) if endless else override):
            return []
        cause = Cause.DRAINED if override.status is Status.DRAINING else Cause.MAINTENANCE
        after = replace(before, override=override)
        return [listing_change(with_provenance(before, after, caller.provenance(cause, override.reason)))]

    return decide


def clear_override(key: Key, reason: str, caller: Caller) -> Decision:
    """Removes the override, so that evidence decides the status. Raises `UnknownInstance` and `NotOwner`.

    The override of another author takes the right to operate the service; without it, raises `Forbidden`.
    """

    def decide(view: CatalogView) -> list[Change]:
        before = require_listed(view, key)
        ownership.require_change(caller.principal, before)
        if before.override is not None and not _may_replace_override(before, caller):
            raise Forbidden(
                f"{before.override.author} declared this override: clearing it needs the scope operate:{key.service}"
            )
        return without_override(before, caller.provenance(Cause.RESUMED, reason))

    return decide


def _may_replace_override(listing: Listing, caller: Caller) -> bool:
    """Returns whether the caller may replace or clear the override: it declared it, or may operate the service."""
    override = listing.override
    if override is None or override.author == caller.actor:
        return True
    return caller.principal.scopes.can(Right.OPERATE, listing.key.service)


# Shared with `observations`


def require_listed(view: CatalogView, key: Key) -> Listing:
    """Returns the listing. Raises `UnknownInstance`."""
    listing = view.find(key)
    if listing is None:
        raise UnknownInstance(key.service, key.id)
    return listing


def hold_lease(before: Listing, caller: Caller) -> list[Change]:
    """Returns the change from a lapsed lease to a held one; no change if the lease is held."""
    if before.lease is LeaseState.HELD:
        return []
    after = replace(before, lease=LeaseState.HELD)
    return [listing_change(with_provenance(before, after, caller.provenance(Cause.LEASE_RENEWED)))]


def without_override(before: Listing, provenance: Provenance) -> list[Change]:
    """Returns the change that removes the override; no change if there is no override."""
    if before.override is None:
        return []
    return [listing_change(with_provenance(before, replace(before, override=None), provenance))]


def with_provenance(before: Listing, after: Listing, provenance: Provenance) -> Listing:
    """Returns `after` with its provenance. `since` changes only with the status."""
    return replace(after, provenance=provenance, since=before.since if after.status is before.status else provenance.at)


def listing_change(listing: Listing) -> Change:
    """Returns the change to this listing."""
    return Change(listing.key, listing, listing.provenance)


def _declared_at(override: Override | None) -> float:
    return override.at if override is not None else 0.0


def _require_holder(listing: Listing, holder: str) -> None:
    """Raises `LeaseLost` if `holder` does not hold the lease. An empty holder skips the check: operators have none."""
    if holder and listing.registration.holder != holder:
        raise LeaseLost(*listing.key)
