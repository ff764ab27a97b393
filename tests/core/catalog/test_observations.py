"""Decisions on observations of the keeper."""

from __future__ import annotations

from msgspec.structs import replace

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog import decisions, observations
from adsum.core.catalog.changes import Change
from adsum.core.model import Status
from adsum.core.provenance import Cause, Provenance
from tests.core.catalog.requests import DB, DRAIN, KEY, LATER, NOW, TIMER, WEB, after, listing_of, registration


def test_a_lapsed_lease_is_critical_and_passes_again_when_renewed() -> None:
    snapshot = after(decisions.register(registration(), NOW), observations.lapse(KEY, "late", TIMER))
    assert listing_of(snapshot).status is Status.CRITICAL
    assert listing_of(snapshot).provenance == Provenance(Cause.LEASE_LAPSED, REGISTRY_ACTOR, "late", TIMER.at)
    again = listing_of(after(observations.renew(KEY, LATER), start=snapshot))
    assert (again.status, again.provenance.cause, again.since) == (Status.PASSING, Cause.LEASE_RENEWED, LATER.at)


def test_a_lease_renewed_meanwhile_does_not_expire() -> None:
    held = after(decisions.register(registration(), NOW))
    assert observations.expire(KEY, "too late", TIMER)(held) == []
    lapsed = after(observations.lapse(KEY, "late", TIMER), start=held)
    (change,) = observations.expire(KEY, "too late", TIMER)(lapsed)
    assert change == Change(KEY, None, Provenance(Cause.LEASE_EXPIRED, REGISTRY_ACTOR, "too late", TIMER.at))


def test_the_worst_check_decides_and_the_reason_names_it() -> None:
    snapshot = after(
        decisions.register(registration(WEB, DB), NOW),
        observations.record_check(KEY, "web", Status.PASSING, "", NOW),
        observations.record_check(KEY, "db", Status.CRITICAL, "refused", TIMER),
    )
    assert listing_of(snapshot).status is Status.CRITICAL
    assert listing_of(snapshot).provenance == Provenance(Cause.CHECK_CRITICAL, REGISTRY_ACTOR, "db: refused", TIMER.at)


def test_the_outcome_of_a_removed_check_is_ignored() -> None:
    snapshot = after(decisions.register(registration(WEB), NOW))
    assert observations.record_check(KEY, "db", Status.CRITICAL, "refused", TIMER)(snapshot) == []


def test_only_the_override_whose_length_is_over_expires() -> None:
    snapshot = after(decisions.register(registration(), NOW), decisions.set_override(KEY, DRAIN, "", NOW))
    assert observations.expire_override(KEY, replace(DRAIN, at=1.0), TIMER)(snapshot) == []
    listing = listing_of(after(observations.expire_override(KEY, DRAIN, TIMER), start=snapshot))
    assert (listing.override, listing.provenance.cause) == (None, Cause.OVERRIDE_EXPIRED)
