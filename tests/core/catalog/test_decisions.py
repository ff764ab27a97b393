"""Decisions on requests and observations."""

from __future__ import annotations

import random
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog import decisions, observations
from adsum.core.catalog.changes import Batch, Change
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.draft import CatalogView, Draft
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import AdsumError, CatalogFull, LeaseLost, ServiceNotEmpty, UnknownInstance
from adsum.core.model import Instance, Key, LeaseState, Listing, Override, Registration, Status
from adsum.core.provenance import Cause, Provenance
from tests.core.catalog.requests import DB, DRAIN, KEY, LATER, NOW, TIMER, WEB, after, listing_of, registration
from tests.support import strategies


@st.composite
def requests(draw: st.DrawFn) -> Decision:
    """Any request, about few instances."""
    registration = draw(strategies.simple_registrations())
    key, caller = registration.key, Caller(draw(st.sampled_from(["ann", REGISTRY_ACTOR])), draw(st.floats(0.0, 1e3)))
    holder = draw(st.sampled_from(["", "h1", "h2"]))
    override = draw(st.sampled_from([DRAIN, replace(DRAIN, holder="h1"), Override(Status.MAINTENANCE, "bob")]))
    status = draw(st.sampled_from([Status.PASSING, Status.WARNING, Status.CRITICAL]))
    candidates: list[Decision] = [
        decisions.register(registration, caller),
        decisions.register(registration, caller, draw(st.sampled_from(list(Takeover)))),
        decisions.deregister(key, holder, "bye", caller),
        observations.renew(key, caller),
        observations.lapse(key, "late", caller, abandoned=draw(st.booleans())),
        observations.expire(key, "too late", caller),
        observations.record_check(key, draw(st.sampled_from(["a", "b"])), status, "note", caller),
        decisions.set_override(key, override, holder, caller),
        decisions.clear_override(key, "done", caller),
        observations.expire_override(key, override, caller),
    ]
    return draw(st.sampled_from(candidates))


def _decided(decision: Decision, view: CatalogView) -> list[Change]:
    """The changes; none if the request is refused."""
    try:
        return decision(view)
    except AdsumError:
        return []


@given(st.lists(st.lists(requests(), max_size=4), max_size=8))
@settings(max_examples=40)
def test_a_draft_equals_the_next_snapshot(batches: list[list[Decision]]) -> None:
    snapshot = EMPTY_SNAPSHOT
    for batch in batches:
        draft, changes = Draft(snapshot), list[Change]()
        for decision in batch:
            decided = _decided(decision, draft)
            draft.add(decided)
            changes += decided
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, changes))
        assert (
            draft.instance_count
            == snapshot.instance_count
            == sum(len(service.listings) for service in snapshot.services.values())
        )
        for key in (Key(f"s{s}", f"i{i}") for s in (1, 2) for i in (1, 2, 3)):
            assert draft.find(key) == snapshot.find(key)


@given(st.lists(requests(), max_size=15), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_requests_of_one_batch_have_the_same_result_as_successive_ones(
    history: list[Decision], rng: random.Random
) -> None:
    alone, batched, draft, waiting = EMPTY_SNAPSHOT, EMPTY_SNAPSHOT, Draft(EMPTY_SNAPSHOT), list[Change]()
    for decision in history:
        alone = alone.apply(Batch(alone.revision + 1, _decided(decision, alone)))
        decided = _decided(decision, draft)
        draft.add(decided)
        waiting += decided
        if rng.random() < 0.3:
            batched = batched.apply(Batch(batched.revision + 1, waiting))
            draft, waiting = Draft(batched), []
    batched = batched.apply(Batch(batched.revision + 1, waiting))
    assert _listed(alone) == _listed(batched)


def _listed(snapshot: Snapshot) -> dict[Key, Listing]:
    return {listing.key: listing for service in snapshot.services.values() for listing in service.listings.values()}


@given(st.lists(requests(), max_size=12), requests())
@settings(max_examples=40)
def test_a_repeated_request_changes_nothing(history: list[Decision], request: Decision) -> None:
    snapshot = EMPTY_SNAPSHOT
    for decision in history:
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, _decided(decision, snapshot)))
    after = snapshot.apply(Batch(snapshot.revision + 1, _decided(request, snapshot)))
    assert _decided(request, after) == []


@given(st.lists(requests(), max_size=20))
@settings(max_examples=40)
def test_every_change_has_a_cause_and_an_actor_and_is_the_provenance_of_its_listing(history: list[Decision]) -> None:
    snapshot = EMPTY_SNAPSHOT
    for decision in history:
        for change in _decided(decision, snapshot):
            before, after = snapshot.find(change.key), change.listing
            assert change.provenance.actor
            assert after != before
            if after is None:
                assert before is not None
                assert change.provenance.cause in (Cause.DEREGISTERED, Cause.LEASE_EXPIRED, Cause.SUPERSEDED)
            else:
                assert after.key == change.key
                assert after.provenance == change.provenance
                moved = before is None or after.status is not before.status
                assert after.since == (change.provenance.at if moved else before.since)  # type: ignore[union-attr]
            snapshot = snapshot.apply(Batch(snapshot.revision + 1, [change]))


@given(strategies.registrations)
@settings(max_examples=40)
def test_a_new_instance_is_listed_with_its_checks_starting(registration: Registration) -> None:
    (change,) = decisions.register(registration, NOW)(EMPTY_SNAPSHOT)
    listing = change.listing
    assert listing is not None
    assert listing.registration == registration
    assert listing.checks == {check.name: Status.STARTING for check in registration.checks}
    assert listing.status is (Status.STARTING if registration.checks else Status.PASSING)
    assert (listing.lease, listing.override, listing.since) == (LeaseState.HELD, None, NOW.at)
    assert listing.provenance == change.provenance == Provenance(Cause.REGISTERED, "tester", at=NOW.at)


@given(strategies.listings())
@settings(max_examples=40)
def test_registering_the_same_again_never_resets_health(listing: Listing) -> None:
    snapshot = EMPTY_SNAPSHOT.apply(Batch(1, [Change(listing.key, listing, listing.provenance)]))
    changes = decisions.register(listing.registration, LATER)(snapshot)
    if listing.lease is LeaseState.HELD:
        assert changes == []
    else:
        (change,) = changes
        assert change.listing is not None
        assert change.provenance.cause is Cause.LEASE_RENEWED
        assert change.listing.lease is LeaseState.HELD
        assert (change.listing.checks, change.listing.override) == (listing.checks, listing.override)


def test_an_unchanged_check_keeps_its_status_through_another_registration() -> None:
    snapshot = after(
        decisions.register(registration(WEB, DB), NOW),
        observations.record_check(KEY, "web", Status.PASSING, "200", NOW),
        observations.record_check(KEY, "db", Status.PASSING, "", NOW),
        decisions.register(registration(WEB, replace(DB, interval=1.0)), LATER),
    )
    assert listing_of(snapshot).checks == {"web": Status.PASSING, "db": Status.STARTING}
    assert listing_of(snapshot).provenance == Provenance(Cause.REREGISTERED, "tester", at=LATER.at)


def test_evidence_of_another_port_is_dropped() -> None:
    snapshot = after(
        decisions.register(registration(WEB), NOW),
        observations.record_check(KEY, "web", Status.PASSING, "200", NOW),
        decisions.register(registration(WEB, port=9000), LATER),
    )
    assert listing_of(snapshot).status is Status.STARTING


def test_another_registration_holds_a_lapsed_lease_again() -> None:
    snapshot = after(
        decisions.register(registration(), NOW),
        observations.lapse(KEY, "late", TIMER),
        decisions.register(registration(holder="h2"), LATER),
    )
    assert listing_of(snapshot).lease is LeaseState.HELD
    assert listing_of(snapshot).status is Status.PASSING


@pytest.mark.parametrize(("holder", "stays"), [("h1", True), ("h2", False)])
def test_only_another_holder_clears_the_override_of_a_provider(holder: str, stays: bool) -> None:
    snapshot = after(
        decisions.register(registration(holder="h1"), NOW),
        decisions.set_override(KEY, replace(DRAIN, holder="h1"), "h1", NOW),
        decisions.register(registration(holder=holder, port=9000), LATER, Takeover.FORCE),
    )
    assert listing_of(snapshot).status is (Status.DRAINING if stays else Status.PASSING)
    assert listing_of(snapshot).since == (NOW.at if stays else LATER.at)


def test_the_override_of_an_operator_outlives_every_registration() -> None:
    snapshot = after(
        decisions.register(registration(holder="h1"), NOW),
        decisions.set_override(KEY, DRAIN, "", NOW),
        decisions.register(registration(holder="h2"), LATER),
    )
    assert listing_of(snapshot).override == DRAIN


def test_a_superseded_holder_can_neither_deregister_nor_drain_its_successor() -> None:
    snapshot = after(
        decisions.register(registration(holder="h1"), NOW), decisions.register(registration(holder="h2"), LATER)
    )
    with pytest.raises(LeaseLost):
        decisions.deregister(KEY, "h1", "bye", LATER)(snapshot)
    with pytest.raises(LeaseLost):
        decisions.set_override(KEY, DRAIN, "h1", LATER)(snapshot)
    for holder in ("h2", ""):
        (change,) = decisions.deregister(KEY, holder, "bye", LATER)(snapshot)
        assert change == Change(KEY, None, Provenance(Cause.DEREGISTERED, "tester", "bye", LATER.at))


def test_deregistering_an_unlisted_instance_is_no_error() -> None:
    assert decisions.deregister(KEY, "h1", "bye", NOW)(EMPTY_SNAPSHOT) == []
    assert observations.lapse(KEY, "late", TIMER)(EMPTY_SNAPSHOT) == []
    assert observations.expire(KEY, "late", TIMER)(EMPTY_SNAPSHOT) == []
    assert observations.record_check(KEY, "web", Status.PASSING, "", TIMER)(EMPTY_SNAPSHOT) == []
    assert observations.expire_override(KEY, DRAIN, TIMER)(EMPTY_SNAPSHOT) == []


def test_requests_about_an_unlisted_instance_raise_unknown_instance() -> None:
    for decision in (
        observations.renew(KEY, NOW),
        decisions.set_override(KEY, DRAIN, "", NOW),
        decisions.clear_override(KEY, "", NOW),
    ):
        with pytest.raises(UnknownInstance):
            decision(EMPTY_SNAPSHOT)


def test_an_override_outranks_evidence_until_it_is_cleared() -> None:
    snapshot = after(
        decisions.register(registration(), NOW),
        decisions.set_override(KEY, DRAIN, "", NOW),
        observations.lapse(KEY, "late", TIMER),
    )
    assert listing_of(snapshot).status is Status.DRAINING
    assert listing_of(snapshot).since == NOW.at
    resumed = listing_of(after(decisions.clear_override(KEY, "done", LATER), start=snapshot))
    assert (resumed.status, resumed.since) == (Status.CRITICAL, LATER.at)
    assert resumed.provenance == Provenance(Cause.RESUMED, "tester", "done", LATER.at)


def test_the_same_override_again_changes_nothing_unless_it_has_a_length() -> None:
    endless, hour = replace(DRAIN, length=None), replace(DRAIN, length=3600.0)
    for override, changes in ((endless, 0), (hour, 1)):
        snapshot = after(decisions.register(registration(), NOW), decisions.set_override(KEY, override, "", NOW))
        again = replace(override, at=override.at + 1.0)
        assert len(decisions.set_override(KEY, again, "", LATER)(snapshot)) == changes


@pytest.mark.parametrize(
    ("status", "cause"), [(Status.DRAINING, Cause.DRAINED), (Status.MAINTENANCE, Cause.MAINTENANCE)]
)
def test_an_override_is_recorded_with_its_reason(status: Status, cause: Cause) -> None:
    override = replace(DRAIN, status=status)
    snapshot = after(decisions.register(registration(), NOW), decisions.set_override(KEY, override, "", LATER))
    assert listing_of(snapshot).provenance == Provenance(cause, "tester", "deploy", LATER.at)


def test_a_full_catalog_refuses_new_instances_and_lets_listed_ones_change(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = after(decisions.register(registration(), NOW))
    monkeypatch.setattr(decisions, "MAX_INSTANCES", 1)
    with pytest.raises(CatalogFull):
        decisions.register(replace(registration(), instance=Instance("orders", "o2", "127.0.0.1", 8000)), NOW)(snapshot)
    assert listing_of(after(decisions.register(registration(holder="h2"), NOW), start=snapshot))


def test_a_catalog_full_of_services_accepts_further_instances_of_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def registered(service: str, id: str) -> Decision:
        return decisions.register(Registration(Instance(service, id, "127.0.0.1", 8000)), NOW)

    monkeypatch.setattr(decisions, "MAX_SERVICES", 2)
    draft = Draft(after(registered("orders", "o1")))
    draft.add(registered("users", "u1")(draft))
    with pytest.raises(CatalogFull, match="2 services"):
        registered("web", "w1")(draft)
    assert registered("orders", "o2")(draft)
    assert registered("users", "u2")(draft)


def test_a_decision_does_not_modify_published_listings() -> None:
    before = listing_of(after(decisions.register(registration(WEB), NOW)))
    assert isinstance(before.checks, MappingProxyType)
    snapshot = EMPTY_SNAPSHOT.apply(Batch(1, [Change(KEY, before, before.provenance)]))
    after(observations.record_check(KEY, "web", Status.PASSING, "", NOW), start=snapshot)
    assert listing_of(snapshot).checks == {"web": Status.STARTING}


def test_an_emptied_service_is_forgotten_once_with_the_actor_that_requests_it() -> None:
    emptied = after(decisions.register(registration(), NOW), decisions.deregister(KEY, "", "", NOW))
    forgotten = decisions.forget("orders", "renamed", LATER)
    (change,) = forgotten(emptied)
    assert (change.key, change.listing, change.provenance) == (
        Key("orders", ""),
        None,
        Provenance(Cause.FORGOTTEN, "tester", "renamed", 200.0),
    )
    assert forgotten(after(forgotten, start=emptied)) == forgotten(EMPTY_SNAPSHOT) == []


def test_a_service_with_instances_is_not_forgotten() -> None:
    listed = after(decisions.register(registration(), NOW))
    with pytest.raises(ServiceNotEmpty, match=r"1 instance.*deregister"):
        decisions.forget("orders", "", NOW)(listed)


def test_a_draft_counts_forgotten_services_and_those_that_come_again() -> None:
    emptied = after(decisions.register(registration(), NOW), decisions.deregister(KEY, "", "", NOW))
    draft = Draft(emptied)
    assert (draft.listed_count("orders"), draft.service_count_with("users")) == (0, 2)
    draft.add(decisions.forget("orders", "", NOW)(draft))
    assert (draft.listed_count("orders"), draft.service_count_with("users"), draft.service_count_with("orders")) == (
        None,
        1,
        1,
    )
    draft.add(decisions.register(registration(), NOW)(draft))
    assert (draft.listed_count("orders"), draft.service_count_with("users"), draft.service_count_with("orders")) == (
        1,
        2,
        1,
    )
    with pytest.raises(ServiceNotEmpty):
        decisions.forget("orders", "", NOW)(draft)
