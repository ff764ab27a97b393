"""Takeovers of ids and places, in single decisions and over many registrations."""

from __future__ import annotations

from itertools import chain, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adsum.core.catalog import decisions, observations
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.draft import Draft
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot, load_snapshot
from adsum.core.catalog.takeover import ProbeRequired, Takeover
from adsum.core.errors import RegistrationConflict
from adsum.core.identity import canonical_place, holder_digest
from adsum.core.model import Check, CheckKind, Instance, Key, Registration, Status
from adsum.core.provenance import Cause
from tests.support import strategies

CALLER = Caller("tester", 1.0)
WEB = Check("web", CheckKind.HTTP)
USUAL, NEVER, FORCE = Takeover


def at(
    id: str,
    address: str = "10.0.0.1",
    port: int = 80,
    *,
    holder: str = "",
    service: str = "orders",
    scheme: str = "http",
    ttl: float | None = 15.0,
    checks: tuple[Check, ...] = (),
) -> Registration:
    return Registration(Instance(service, id, address, port, scheme), ttl, checks=checks, holder=holder)


def after(*steps: Decision | Registration, start: Snapshot = EMPTY_SNAPSHOT) -> Snapshot:
    snapshot = start
    for step in steps:
        decision = decisions.register(step, CALLER) if isinstance(step, Registration) else step
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, decision(snapshot)))
    return snapshot


def lapsed(id: str, service: str = "orders") -> Decision:
    return observations.lapse(Key(service, id), "late", CALLER)


def listed(snapshot: Snapshot) -> dict[str, str]:
    """The holders, by service/id."""
    return {
        str(listing.key): listing.registration.holder
        for service in snapshot.services.values()
        for listing in service.listings.values()
    }


# Evidence


@pytest.mark.parametrize(
    "next_registration",
    [
        at("o1", holder="h2", checks=(WEB,)),
        at("o1", holder="h1", port=81, checks=(WEB,)),
        at("o1", holder="h1", scheme="https", checks=(WEB,)),
        at("o1", holder="", checks=(WEB,)),
    ],
)
def test_another_process_is_starting_until_its_own_first_pass(next_registration: Registration) -> None:
    snapshot = after(
        at("o1", holder="h1", checks=(WEB,)),
        observations.record_check(Key("orders", "o1"), "web", Status.PASSING, "", CALLER),
        decisions.register(next_registration, CALLER, FORCE),
    )
    listing = snapshot.find(Key("orders", "o1"))
    assert listing is not None
    assert listing.status is Status.STARTING
    assert listing.provenance.cause is Cause.REREGISTERED


def test_the_same_process_that_registers_again_keeps_its_evidence() -> None:
    first = at("o1", holder="h1", checks=(WEB,))
    snapshot = after(
        first,
        observations.record_check(first.key, "web", Status.PASSING, "", CALLER),
        replace(first, instance=replace(first.instance, weight=7, tags=("v2",)), ttl=30.0),
    )
    listing = snapshot.find(first.key)
    assert listing is not None
    assert listing.status is Status.PASSING


def test_an_outcome_of_the_former_process_does_not_apply_to_the_next_registration() -> None:
    before, now = at("o1", holder="h1", checks=(WEB,)), at("o1", holder="h2", checks=(WEB,))
    snapshot = after(before, now)
    stale = observations.record_check(now.key, "web", Status.PASSING, "", CALLER, before.identity)
    assert stale(snapshot) == []
    assert observations.record_check(now.key, "web", Status.PASSING, "", CALLER, now.identity)(snapshot) != []


def test_the_history_names_both_places_of_a_takeover() -> None:
    snapshot = after(at("o1", holder="h1"), decisions.register(at("o1", "10.0.0.2", holder="h2"), CALLER, FORCE))
    listing = snapshot.find(Key("orders", "o1"))
    assert listing is not None
    assert listing.provenance.reason == "by another process, at http://10.0.0.2:80 instead of http://10.0.0.1:80"


# Ids


@pytest.mark.parametrize(
    ("present", "requested", "takeover", "allowed"),
    [
        (at("o1", holder="h1"), at("o1", "10.0.0.2", holder="h2"), USUAL, "if silent"),
        (at("o1", holder="h1", ttl=None), at("o1", "10.0.0.2", holder="h2"), USUAL, "if silent"),
        (at("o1", holder="h1"), at("o1", port=81, holder="h2"), USUAL, "if silent"),
        (at("o1", holder="h1"), at("o1", "10.0.0.2"), USUAL, "if silent"),
        (at("o1", holder="h1"), at("o1", "10.0.0.2", holder="h2"), NEVER, "no"),
        (at("o1", holder="h1"), at("o1", "10.0.0.2", holder="h2"), FORCE, "yes"),
        (at("o1", holder="h1"), at("o1", holder="h2"), USUAL, "yes"),
        (at("o1", holder="h1"), at("o1", holder="h2"), NEVER, "no"),
        (at("o1", holder="h1"), at("o1", scheme="https", holder="h2"), USUAL, "yes"),
        (at("o1", holder="h1"), at("o1", scheme="https", holder="h2"), NEVER, "no"),
        (at("o1", holder="h1"), at("o1", "10.0.0.1"), USUAL, "no"),
        (at("o1", holder="h1"), at("o1"), FORCE, "yes"),
        (at("o1", holder="h1"), at("o1", "10.0.0.2", holder="h1"), NEVER, "yes"),
        (at("o1"), at("o1", "10.0.0.2"), USUAL, "yes"),
        (at("o1"), at("o1", "10.0.0.2", holder="h2"), USUAL, "yes"),
        (at("o1"), at("o1", "10.0.0.2", holder="h2"), NEVER, "if silent"),
        (at("o1"), at("o1", holder="h2", port=80), NEVER, "yes"),
        (at("o1", holder="etcd-naming"), at("o1", "10.0.0.2"), USUAL, "yes"),
    ],
)
def test_lease_probe_and_takeover_decide_who_gets_an_id(
    present: Registration, requested: Registration, takeover: Takeover, allowed: str
) -> None:
    snapshot = after(present)

    for silent, is_taken in ((False, allowed == "yes"), (True, allowed != "no")):
        decision = decisions.register(requested, CALLER, takeover, {present.identity} if silent else set())
        if is_taken:
            assert decision(snapshot)
            continue
        with pytest.raises(RegistrationConflict) as refused:
            decision(snapshot)
        for words in (str(present.instance.place), str(requested.instance.place), "takeover=force"):
            assert words in str(refused.value)
        assert isinstance(refused.value, ProbeRequired) == (allowed == "if silent")
    assert decisions.register(requested, CALLER, takeover)(after(lapsed("o1"), start=snapshot)), (
        "a lapsed one is not live"
    )


def test_silence_of_a_former_process_proves_nothing_about_the_present_one() -> None:
    probed, now = at("o1", holder="h1"), at("o1", "10.0.0.3", holder="h3")
    with pytest.raises(RegistrationConflict, match=r"http://10\.0\.0\.3:80"):
        decisions.register(at("o1", "10.0.0.2", holder="h2"), CALLER, USUAL, {probed.identity})(after(now))


# Places


def test_a_registration_supersedes_another_process_of_its_service_at_its_place() -> None:
    snapshot = after(*(at(f"crash-{n}", holder=f"p{n}") for n in range(3)))
    assert listed(snapshot) == {"orders/crash-2": "p2"}
    removal = snapshot.service("orders").recent_changes[-2]
    assert (removal.id, removal.listed) == ("crash-1", False)
    assert removal.provenance.cause is Cause.SUPERSEDED
    assert removal.provenance.reason == "another process registered at http://10.0.0.1:80, as orders/crash-2"


@pytest.mark.parametrize(
    "neighbour",
    [
        at("o1", holder="h1", service="users"),
        at("o1", holder="h1", port=81),
        at("o1", holder="h1", scheme="https"),
        at("o1", holder="h2"),
        at("o1", holder="h2~~1"),
    ],
)
def test_a_registration_leaves_other_services_other_places_and_its_own_process_alone(neighbour: Registration) -> None:
    assert len(listed(after(neighbour, at("o2", holder="h2")))) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [("::1", "0:0:0:0:0:0:0:1"), ("web.example", "WEB.example."), ("10.0.0.1", "::ffff:10.0.0.1")],
)
def test_different_spellings_of_an_address_are_one_place(first: str, second: str) -> None:
    assert canonical_place(first, 80, "http") == canonical_place(second, 80, "http")
    assert listed(after(at("o1", first, holder="h1"), at("o2", second, holder="h2"))) == {"orders/o2": "h2"}


def test_a_registration_without_a_holder_does_not_get_the_place_of_a_live_process() -> None:
    snapshot = after(at("o1", holder="h1"))
    with pytest.raises(RegistrationConflict, match="as orders/o1"):
        decisions.register(at("o2"), CALLER)(snapshot)
    assert listed(after(lapsed("o1"), at("o2"), start=snapshot)) == {"orders/o2": ""}


def test_a_process_that_was_listed_before_waits_while_another_is_at_its_place() -> None:
    snapshot = after(at("o1", holder="h1"), at("o2", holder="h2"))
    with pytest.raises(RegistrationConflict, match="as orders/o2"):
        decisions.register(at("o1", holder="h1"), CALLER, NEVER)(snapshot)
    free = after(decisions.deregister(Key("orders", "o2"), "h2", "", CALLER), start=snapshot)
    assert decisions.register(at("o1", holder="h1"), CALLER, NEVER)(free)


@pytest.mark.parametrize("same_id", [True, False])
@given(seed=st.integers(0, 1000), silent=st.booleans(), elsewhere=st.booleans())
@settings(max_examples=40, deadline=None)
def test_two_live_processes_never_alternate(same_id: bool, seed: int, silent: bool, elsewhere: bool) -> None:
    """Each may take the entry of the other once, when it first registers, however often they register."""
    rng = Random(seed)
    ids = ("o1", "o1" if same_id else "o2")
    both = [at(id, f"10.0.0.{n if elsewhere else 1}", holder=f"h{n}") for n, id in enumerate(ids, 1)]
    if elsewhere and not same_id:
        return  # They do not compete.
    takeover = dict.fromkeys(range(2), USUAL)
    snapshot, winners = EMPTY_SNAPSHOT, list[str]()
    for _ in range(30):
        n = rng.randrange(2)
        try:
            silence = {registration.identity for registration in both} if silent else set()
            decision = decisions.register(both[n], CALLER, takeover[n], silence)
            snapshot = after(decision, start=snapshot)
            takeover[n] = NEVER
            winners.append(both[n].holder)
        except RegistrationConflict:
            pass
        assert len(listed(snapshot)) == 1
    assert sum(first != second for first, second in pairwise(winners)) <= 1


# Leases that lapse at the place of another process


def test_an_instance_with_an_abandoned_lease_is_removed_when_it_lapses_and_names_its_successor() -> None:
    snapshot = after(at("o1", holder="h1"), at("u1", holder="h2", service="users"))
    assert len(listed(snapshot)) == 2
    (change,) = observations.lapse(Key("orders", "o1"), "late", CALLER, abandoned=True)(snapshot)
    assert change.listing is None
    assert (change.provenance.cause, "users/u1 is at http://10.0.0.1:80" in change.provenance.reason) == (
        Cause.SUPERSEDED,
        True,
    )
    (change,) = observations.lapse(Key("orders", "o1"), "late", CALLER)(snapshot)
    assert change.listing is not None, "both have lived there, so it may come back"


@pytest.mark.parametrize(
    "neighbour", [at("u1", service="users", ttl=None), at("u1", holder="h1", service="users"), at("u1", port=81)]
)
def test_only_another_process_that_holds_its_lease_is_a_successor(neighbour: Registration) -> None:
    snapshot = after(at("o1", holder="h1"), neighbour)
    (change,) = observations.lapse(Key("orders", "o1"), "late", CALLER, abandoned=True)(snapshot)
    assert change.listing is not None
    lapsed_too = after(lapsed("o1"), start=snapshot)
    (change,) = observations.expire(Key("orders", "o1"), "late", CALLER)(lapsed_too)
    assert change.provenance.cause is Cause.LEASE_EXPIRED


OTHERS = [
    at("u1", holder="h2", service="users"),
    at("u1", holder="h2", service="users", scheme="grpc"),
    at("o2", holder="h2", scheme="https"),
]
"""Other processes at the address and port of o1: of another service, of another scheme, or both."""


@pytest.mark.parametrize("successor", OTHERS)
def test_a_lapsed_instance_is_removed_when_another_process_is_at_its_address_and_port(successor: Registration) -> None:
    (change,) = observations.lapse(Key("orders", "o1"), "late", CALLER, abandoned=True)(
        after(at("o1", holder="h1"), successor)
    )
    assert (change.listing, change.provenance.cause) == (None, Cause.SUPERSEDED)
    assert f"{successor.key} is at {successor.instance.place} now" in change.provenance.reason


@pytest.mark.parametrize("successor", OTHERS)
def test_a_lapsed_instance_is_removed_when_another_process_registers_at_its_address_and_port(
    successor: Registration,
) -> None:
    snapshot = after(at("o1", holder="h1"), lapsed("o1"), successor)
    assert listed(snapshot) == {str(successor.key): "h2"}
    removal = next(change for change in snapshot.service("orders").recent_changes if not change.listed)
    assert (removal.id, removal.provenance.cause) == ("o1", Cause.SUPERSEDED)


# The index


@given(st.lists(st.lists(strategies.simple_changes, max_size=6), max_size=8))
@settings(max_examples=60, deadline=None)
def test_snapshots_and_drafts_find_the_same_instances_at_a_place(batches: list[list[Change]]) -> None:
    snapshot = EMPTY_SNAPSHOT
    for batch in batches:
        draft = Draft(snapshot)
        for change in batch:
            draft.add([change])
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, batch))
        listings = [listing for service in snapshot.services.values() for listing in service.listings.values()]
        loaded = load_snapshot(FullState("e", snapshot.revision, [(1, listing) for listing in listings]))
        for port in (8000, 8001):
            host_port = canonical_place("127.0.0.1", port, "http").host_port
            keys = {listing.key for listing in listings if listing.instance.place.host_port == host_port}
            for view in (snapshot, draft, loaded):
                assert {listing.key for listing in view.listings_at(host_port)} == keys


def test_a_change_copies_a_small_share_of_the_index() -> None:
    listings = [after(at(f"o{n}", f"10.{n >> 8}.{n & 255}.1")).find(Key("orders", f"o{n}")) for n in range(3_000)]
    snapshot = load_snapshot(FullState("e", 1, [(1, listing) for listing in listings if listing is not None]))
    moved = after(at("o7", "10.99.0.1"), start=snapshot)
    before, now = (chain.from_iterable(index._groups) for index in (snapshot.address_index, moved.address_index))
    copied = [first for first, second in zip(before, now, strict=True) if first is not second]
    assert len(copied) <= 2
    assert sum(map(len, copied)) < 100
    renewed = after(observations.lapse(Key("orders", "o8"), "late", CALLER), start=moved)
    assert renewed.address_index is moved.address_index


def test_digests_differ_between_holders_and_do_not_reveal_them() -> None:
    assert holder_digest("") == ""
    assert holder_digest("h1") != holder_digest("h2")
    assert holder_digest("h1~~1") == holder_digest("h1~~2") == holder_digest("h1"), "parts of one process"
    assert "h1" not in holder_digest("h1")
