"""Decisions on requests of callers with scopes: who may register, change and drain what others registered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from adsum.core.access.ownership import may_change
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import Right, Scopes
from adsum.core.catalog import decisions, observations
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import AdsumError, Forbidden, NotOwner, RegistrationConflict
from adsum.core.model import Instance, Key, LeaseState, Override, Registration, Status
from adsum.core.provenance import Cause
from tests.core.access.principals import proven, scope_sets, unproven
from tests.core.catalog.requests import DRAIN, KEY, TIMER, after, listing_of, registration


def caller(*scopes: str, name: str = "team-a") -> Caller:
    return Caller(name, 100.0, "10.0.0.1", principal=proven(*scopes, name=name))


ANN, BOB = caller("write:orders"), caller("write:orders", name="bob")
OPERATOR = caller("operate:orders", name="operator")
NOBODY = Caller("anonymous@10.0.0.9", 100.0, "10.0.0.9", principal=unproven("write:*"))


def registration_in(service: str) -> Registration:
    """A registration of another process at the place of `KEY`, in another service."""
    return Registration(Instance(service, "u1", "127.0.0.1", 8000), ttl=15.0, holder="h2")


OVERRIDE = Override(Status.MAINTENANCE, "operator", "disks")

LISTED = after(decisions.register(registration(), ANN))
"""`KEY` as `team-a` registered it."""
UNOWNED = after(decisions.register(registration(), NOBODY))
"""`KEY` as a caller registered it that proved nothing."""


def test_whoever_registers_an_instance_is_its_owner() -> None:
    assert listing_of(LISTED).owner == "team-a"
    assert listing_of(UNOWNED).owner == ""


@pytest.mark.parametrize(
    "decision",
    [
        decisions.register(registration(), BOB),
        decisions.register(registration(port=9000), BOB),
        decisions.register(registration(holder="h2"), BOB),
        decisions.deregister(KEY, "", "", BOB),
        decisions.deregister(KEY, "h1", "", BOB),
        decisions.set_override(KEY, DRAIN, "", BOB),
        decisions.clear_override(KEY, "", BOB),
        decisions.register(registration(), NOBODY),
        decisions.deregister(KEY, "", "", NOBODY),
    ],
)
@pytest.mark.parametrize("lease", LeaseState)
def test_the_right_to_write_is_not_enough_for_what_another_caller_registered(
    decision: Decision, lease: LeaseState
) -> None:
    snapshot = LISTED
    if lease is LeaseState.LAPSED:
        snapshot = after(observations.lapse(KEY, "late", TIMER), start=LISTED)
    with pytest.raises(NotOwner):
        decision(snapshot)


@pytest.mark.parametrize("who", [ANN, OPERATOR, caller("admin", name="root"), Caller("registry", 1.0)])
def test_the_owner_and_whoever_operates_the_service_may_change_it(who: Caller) -> None:
    assert decisions.deregister(KEY, "", "", who)(LISTED)
    assert decisions.set_override(KEY, DRAIN, "", who)(LISTED)
    assert decisions.register(registration(port=9000), who)(LISTED)


def test_an_instance_without_an_owner_may_be_changed_by_every_writer_of_the_service() -> None:
    assert decisions.deregister(KEY, "", "", BOB)(UNOWNED)
    assert decisions.set_override(KEY, DRAIN, "", BOB)(UNOWNED)
    with pytest.raises(NotOwner):
        decisions.deregister(KEY, "", "", caller("write:users"))(UNOWNED)


def test_the_same_registration_with_a_proof_makes_the_caller_the_owner_once() -> None:
    snapshot = after(decisions.register(registration(), ANN), start=UNOWNED)
    assert listing_of(snapshot).owner == "team-a"
    assert listing_of(snapshot).provenance.cause is Cause.REREGISTERED
    assert decisions.register(registration(), ANN)(snapshot) == []


def test_adopting_an_instance_keeps_the_status_of_its_checks_and_its_override() -> None:
    snapshot = after(decisions.set_override(KEY, DRAIN, "", NOBODY), start=UNOWNED)
    adopted = listing_of(after(decisions.register(registration(), ANN), start=snapshot))
    assert (adopted.override, adopted.checks) == (DRAIN, listing_of(snapshot).checks)
    assert adopted.since == listing_of(snapshot).since


def test_a_caller_without_a_proof_never_takes_the_ownership_away() -> None:
    everyone = Caller("anonymous@10.0.0.9", 100.0, principal=unproven("admin"))
    snapshot = after(decisions.register(registration(port=9000), everyone), start=LISTED)
    assert listing_of(snapshot).owner == "team-a"
    assert decisions.register(registration(), everyone)(LISTED) == []


def test_an_operator_that_registers_an_instance_of_another_caller_becomes_its_owner() -> None:
    snapshot = after(decisions.register(registration(port=9000), OPERATOR), start=LISTED)
    assert listing_of(snapshot).owner == "operator"
    with pytest.raises(NotOwner):
        decisions.deregister(KEY, "", "", ANN)(snapshot)


def test_the_same_registration_by_an_operator_renews_and_leaves_the_owner() -> None:
    lapsed = after(observations.lapse(KEY, "late", TIMER), start=LISTED)
    snapshot = after(decisions.register(registration(), OPERATOR), start=lapsed)
    assert (listing_of(snapshot).owner, listing_of(snapshot).lease) == ("team-a", LeaseState.HELD)


# Places


def _at_the_place(service: str, id: str = "o2", holder: str = "h2") -> Registration:
    return Registration(Instance(service, id, "127.0.0.1", 8000), holder=holder)


def test_a_place_in_the_same_service_belongs_to_the_caller_that_registered_it() -> None:
    with pytest.raises(NotOwner):
        decisions.register(_at_the_place("orders"), BOB)(LISTED)
    for who in (ANN, OPERATOR):
        removed, listed = decisions.register(_at_the_place("orders"), who)(LISTED)
        assert (removed.key, removed.listing, removed.provenance.cause) == (KEY, None, Cause.SUPERSEDED)
        assert listed.key == Key("orders", "o2")


@pytest.mark.parametrize("holder", ["h1", "h2", ""])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_other_caller_lists_a_second_instance_at_the_place_whatever_its_holder(holder: str, scheme: str) -> None:
    second = Registration(Instance("orders", "o2", "127.0.0.1", 8000, scheme=scheme), ttl=15.0, holder=holder)
    for takeover in Takeover:
        with pytest.raises(NotOwner):
            decisions.register(second, BOB, takeover)(LISTED)
    if holder == "h1":
        assert decisions.register(second, ANN)(LISTED), "one process may have several instances"


@pytest.mark.parametrize("owner", [ANN, NOBODY])
def test_a_place_that_another_caller_registers_too_does_not_end_the_grace_of_an_instance(owner: Caller) -> None:
    mallory = caller("write:*", name="mallory")
    there = decisions.register(registration_in("users"), mallory)
    start = after(decisions.register(registration(), owner), there)
    (lapsed,) = observations.lapse(KEY, "late", TIMER, abandoned=True)(start)
    start = after(observations.lapse(KEY, "late", TIMER), start=start)
    (expired,) = observations.expire(KEY, "late", TIMER)(start)
    if owner is ANN:
        assert lapsed.listing is not None
        assert expired.provenance.cause is Cause.LEASE_EXPIRED
        assert not observations.successors_of(listing_of(start), start)
    else:
        assert lapsed.listing is None, "an instance without an owner has none to protect it"
        assert expired.provenance.cause is Cause.SUPERSEDED


def test_the_history_of_an_instance_does_not_name_an_instance_of_another_service() -> None:
    both = caller("operate:*", name="team-a")
    start = after(decisions.register(registration(), both), observations.lapse(KEY, "late", TIMER))
    removal, _ = decisions.register(registration_in("users"), both)(start)
    assert removal.provenance.cause is Cause.SUPERSEDED
    assert "users" not in removal.provenance.reason
    start = after(decisions.register(registration(), both), decisions.register(registration_in("users"), both))
    (removal,) = observations.lapse(KEY, "late", TIMER, abandoned=True)(start)
    assert removal.listing is None
    assert "users" not in removal.provenance.reason


def test_a_lapsed_instance_of_another_service_at_the_place_stays_if_the_caller_may_not_change_it() -> None:
    lapsed = after(observations.lapse(KEY, "late", TIMER), start=LISTED)
    for who in (caller("write:users", name="bob"), caller("write:*", name="bob")):
        (listed,) = decisions.register(_at_the_place("users"), who)(lapsed)
        assert listed.key == Key("users", "o2")
    for who in (caller("write:*"), caller("write:users", "operate:orders", name="bob")):
        assert [change.key for change in decisions.register(_at_the_place("users"), who)(lapsed)] == [
            KEY,
            Key("users", "o2"),
        ]


def test_a_caller_does_not_learn_that_an_instance_of_another_service_is_at_its_place() -> None:
    users = caller("write:users", name="bob")
    for start in (LISTED, after(observations.lapse(KEY, "late", TIMER), start=LISTED), EMPTY_SNAPSHOT):
        (listed,) = decisions.register(_at_the_place("users"), users)(start)
        assert "orders" not in listed.provenance.reason


def test_a_conflict_of_processes_is_reported_only_to_a_caller_that_may_change_the_instance() -> None:
    elsewhere = structs.replace(registration(), instance=Instance(*KEY, "127.0.0.1", 9000), holder="h2")
    with pytest.raises(RegistrationConflict, match=r"127\.0\.0\.1:8000"):
        decisions.register(elsewhere, ANN)(LISTED)
    with pytest.raises(NotOwner) as refused:
        decisions.register(elsewhere, BOB)(LISTED)
    assert "8000" not in str(refused.value)


# Overrides

OVERRIDDEN = after(decisions.set_override(KEY, OVERRIDE, "", OPERATOR), start=LISTED)
"""`KEY` in maintenance by an operator."""


def test_the_override_of_an_operator_outlasts_a_drain_by_the_owner() -> None:
    drain = Override(Status.DRAINING, "team-a", holder="h1")
    assert decisions.set_override(KEY, drain, "h1", ANN)(OVERRIDDEN) == []
    with pytest.raises(Forbidden, match="operator declared this override: clearing it needs the scope operate:orders"):
        decisions.clear_override(KEY, "", ANN)(OVERRIDDEN)


def test_an_override_is_replaced_and_cleared_by_its_author_and_by_whoever_operates_the_service() -> None:
    other = caller("operate:*", name="other")
    for who in (OPERATOR, other):
        replaced = Override(Status.DRAINING, who.actor)
        snapshot = after(decisions.set_override(KEY, replaced, "", who), start=OVERRIDDEN)
        assert listing_of(snapshot).override == replaced
        assert listing_of(after(decisions.clear_override(KEY, "", who), start=OVERRIDDEN)).override is None
    own = after(decisions.set_override(KEY, Override(Status.DRAINING, "team-a"), "", ANN), start=LISTED)
    assert listing_of(after(decisions.clear_override(KEY, "", ANN), start=own)).override is None


def test_an_operator_replaces_the_override_of_the_owner() -> None:
    own = after(decisions.set_override(KEY, Override(Status.DRAINING, "team-a"), "", ANN), start=LISTED)
    assert listing_of(after(decisions.set_override(KEY, OVERRIDE, "", OPERATOR), start=own)).override == OVERRIDE


def test_clearing_without_an_override_changes_nothing_and_needs_the_ownership() -> None:
    assert decisions.clear_override(KEY, "", ANN)(LISTED) == []
    with pytest.raises(NotOwner):
        decisions.clear_override(KEY, "", BOB)(LISTED)


# Any request

services, owners = st.sampled_from(["orders", "users"]), st.sampled_from(["team-a", "bob"])


@st.composite
def _requests(draw: st.DrawFn) -> tuple[Caller, Decision]:
    principal = Principal(draw(owners), draw(scope_sets), is_proven=draw(st.booleans()))
    if draw(st.booleans()):
        principal = replace(principal, scopes=proven(f"write:{draw(services)}").scopes)
    who = Caller(principal.name, 100.0, principal=principal)
    key = Key(draw(services), draw(st.sampled_from(["1", "2"])))
    port, holder = draw(st.sampled_from([8000, 8001])), draw(st.sampled_from(["h1", "h2"]))
    decision = draw(
        st.sampled_from(
            [
                decisions.register(Registration(Instance(*key, "127.0.0.1", port), holder=holder), who),
                decisions.deregister(key, "", "", who),
                decisions.set_override(key, Override(Status.DRAINING, who.actor), "", who),
                decisions.clear_override(key, "", who),
            ]
        )
    )
    return who, decision


@given(st.lists(_requests(), max_size=12))
def test_no_request_changes_an_instance_that_its_caller_may_not_change(requests: list[tuple[Caller, Decision]]) -> None:
    snapshot: Snapshot = EMPTY_SNAPSHOT
    for who, decision in requests:
        try:
            changes = decision(snapshot)
        except AdsumError:
            continue
        for change in changes:
            before = snapshot.find(change.key)
            assert before is None or may_change(who.principal, before)
            if change.listing is not None and before is not None:
                assert change.listing.owner in (before.owner, who.principal.owner)
            if before is not None and before.override and not _operates(who.principal.scopes, change.key.service):
                kept = change.listing is None or change.listing.override == before.override
                assert kept or before.override.author == who.actor
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, changes))


def _operates(scopes: Scopes, service: str) -> bool:
    return scopes.can(Right.OPERATE, service)
