"""The contract of `adsum.ports.Store`, for every store of the table."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from adsum import stores
from adsum.core.catalog import documents
from adsum.core.catalog.changes import MAX_HISTORY_PER_SERVICE, Batch, Change, FullState, forget_service
from adsum.core.catalog.documents import ACCESS_KINDS, INTENT_KINDS, DocumentKind, Edit
from adsum.core.errors import StoreConflict, StoreUnavailable
from adsum.core.model import Key
from adsum.core.provenance import Cause, Provenance
from adsum.stores import memory
from adsum.stores.batch_feed import MAX_QUEUED_BATCHES
from adsum.stores.edit_log import MAX_RECORD_BYTES
from adsum.stores.etcd import departed_services, edit_history
from adsum.stores.sqlite import contents, fold
from tests.stores.support import (
    STORE_URLS,
    StoreLocation,
    change,
    current_listings,
    current_snapshot,
    open_follower,
    put_route,
    put_token,
    withdraw_route,
)
from tests.support.etcd_process import EtcdProcess

SLACK = 2_000
"""Changes by which a history may exceed its bounds before it is trimmed."""


@pytest.fixture(params=stores.STORES)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> StoreLocation:
    if request.param == "etcd":
        etcd: EtcdProcess = request.getfixturevalue("etcd")
        return StoreLocation(f"{etcd.url}?prefix=/{secrets.token_hex(4)}")
    return StoreLocation(STORE_URLS[request.param](tmp_path))


async def test_a_new_store_is_empty(location: StoreLocation) -> None:
    async with location.open() as store:
        snapshot = await current_snapshot(store)
        assert (snapshot.revision, current_listings(snapshot)) == (location.zero, {})
        assert len(snapshot.epoch) == 32
        assert await store.history(None, None, 10) == []


async def test_a_stream_is_the_full_state_and_then_every_batch_in_order(location: StoreLocation) -> None:
    async with location.open() as store:
        first = change("o1")
        await store.commit([first], location.zero)
        async with open_follower(store) as follower:
            assert isinstance(await follower.next(), FullState)
            later = [change("o2"), change("o1", None)], [change("o3")]
            for base_revision, changes in enumerate(later, location.zero + 1):
                await store.commit(changes, base_revision)
            assert [await follower.next() for _ in later] == [
                Batch(revision, tuple(changes)) for revision, changes in enumerate(later, location.zero + 2)
            ]
            assert set(current_listings(follower.snapshot)) == {Key("orders", "o2"), Key("orders", "o3")}


async def test_every_follower_receives_every_batch(location: StoreLocation) -> None:
    async with location.open() as store, open_follower(store) as one, open_follower(store) as other:
        await one.next()
        await store.commit([change("o1")], location.zero)
        await other.next()
        await store.commit([change("o2")], location.zero + 1)
        assert (
            current_listings(await one.reach(location.zero + 2))
            == current_listings(await other.reach(location.zero + 2))
            != {}
        )


async def test_the_full_state_has_the_revision_of_the_last_change_of_every_listing(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.commit([change("o1"), change("o2")], location.zero)
        await store.commit([change("o2", 8001)], location.zero + 1)
        async with open_follower(store) as follower:
            full_state = await follower.next()
            assert isinstance(full_state, FullState)
            assert {listing.key.id: revision - location.zero for revision, listing in full_state.listings} == {
                "o1": 1,
                "o2": 2,
            }


async def test_the_last_change_of_an_instance_in_a_batch_counts(location: StoreLocation) -> None:
    async with location.open() as store:
        revision = await store.commit(
            [change("o1"), change("o2"), change("o1", None), change("o2", 8001)], location.zero
        )
        snapshot = await current_snapshot(store)
        assert current_listings(snapshot) == {Key("orders", "o2"): change("o2", 8001).listing}
        assert [recorded.revision for recorded in await store.history(None, None, 9)] == [revision] * 4


async def test_the_owner_of_an_instance_and_the_claimed_actor_outlast_a_restart(location: StoreLocation) -> None:
    provenance = Provenance(Cause.REGISTERED, "team-a", "", 1.0, "10.0.0.7", "deploy script")
    registered = change("o1").listing
    assert registered is not None
    listing = replace(registered, owner="team-a", provenance=provenance)
    async with location.open() as store:
        await store.commit([Change(listing.key, listing, provenance)], location.zero)
    async with location.open() as store:
        assert current_listings(await current_snapshot(store)) == {listing.key: listing}
        assert [recorded.provenance for recorded in await store.history("orders", "o1", 9)] == [provenance]


async def test_a_service_whose_last_instance_was_removed_stays_known(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.commit([change("u1", service="users"), change("o1"), change("o2")], location.zero)
        await store.commit([change("o1", None), change("o2", None)], location.zero + 1)
    async with location.open() as store:
        services = (await current_snapshot(store)).services
        assert {name: len(service.listings) for name, service in services.items()} == {"users": 1, "orders": 0}
        assert list(services) == ["users", "orders"], "services are in the order of their last change"


async def test_past_a_bound_the_service_with_the_oldest_removal_is_forgotten(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory, contents, fold, departed_services):
        monkeypatch.setattr(module, "MAX_REMOVAL_REVISIONS", 2)
    async with location.open() as store, open_follower(store) as follower:
        names = ["a", "b", "a", "c", "d"]
        for number, name in enumerate(names):
            await store.commit([change("i", service=name)], location.zero + 2 * number)
            await store.commit([change("i", None, service=name)], location.zero + 2 * number + 1)
        await store.commit([change("i", service="e")], location.zero + 2 * len(names))
        await follower.reach(location.zero + 2 * len(names) + 1)
        assert set((await current_snapshot(store)).services) == {"c", "d", "e"}


async def test_a_forgotten_service_is_unknown_to_all_followers_and_its_history_stays(location: StoreLocation) -> None:
    why = Provenance(Cause.FORGOTTEN, "ann", "renamed")
    async with location.open() as store, open_follower(store) as follower:
        await store.commit([change("o1"), change("u1", service="users")], location.zero)
        await store.commit([change("o1", None), change("u1", None, service="users")], location.zero + 1)
        await store.commit([forget_service("orders", why)], location.zero + 2)
        await follower.reach(location.zero + 3)
        assert set(follower.snapshot.services) == set((await current_snapshot(store)).services) == {"users"}
        newest, *earlier = await store.history("orders", None, 9)
        assert (newest.key, newest.status, newest.provenance) == (Key("orders", ""), "", why)
        assert [recorded.key for recorded in earlier] == [Key("orders", "o1")] * 2
    async with location.open() as store:
        assert set((await current_snapshot(store)).services) == {"users"}
        assert len(await store.history("orders", None, 9)) == 3


async def test_a_service_may_be_emptied_forgotten_and_listed_again_in_one_batch(location: StoreLocation) -> None:
    why = Provenance(Cause.FORGOTTEN, "ann")
    async with location.open() as store, open_follower(store) as follower:
        await store.commit([change("o1"), change("u1", service="users"), change("p1", service="pay")], location.zero)
        leaving = change("o1", None), change("u1", None, service="users"), change("p1", None, service="pay")
        forgotten = forget_service("orders", why), forget_service("users", why), forget_service("pay", why)
        again = change("u2", service="users"), change("p2", service="pay"), change("p2", None, service="pay")
        await store.commit([*leaving, *forgotten, *again], location.zero + 1)
        await follower.reach(location.zero + 2)
        for snapshot in (follower.snapshot, await current_snapshot(store)):
            assert {name: snapshot.listed_count(name) for name in snapshot.services} == {"users": 1, "pay": 0}
    async with location.open() as store:
        snapshot = await current_snapshot(store)
        assert {name: snapshot.listed_count(name) for name in snapshot.services} == {"users": 1, "pay": 0}


async def test_a_stale_batch_is_refused_and_leaves_nothing(location: StoreLocation) -> None:
    async with location.open() as store, open_follower(store) as follower:
        await store.commit([change("o1")], location.zero)
        for base_revision in (location.zero, location.zero + 2):
            with pytest.raises(StoreConflict, match=f"revision {base_revision}.*at {location.zero + 1}"):
                await store.commit([change("o1", 8001), change("o2")], base_revision)
        assert (
            current_listings(await current_snapshot(store))
            == current_listings(await follower.reach(location.zero + 1))
            == {Key("orders", "o1"): change("o1").listing}
        )
        assert len(await store.history(None, None, 10)) == 1
        assert await store.commit([change("o1", None)], location.zero + 1) == location.zero + 2


async def test_only_the_newest_revision_is_confirmed(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.confirm(location.zero)
        await store.commit([change("o1")], location.zero)
        await store.confirm(location.zero + 1)
        for base_revision in (location.zero, location.zero + 2):
            with pytest.raises(StoreConflict, match=f"revision {base_revision}.*at {location.zero + 1}"):
                await store.confirm(base_revision)
        await store.commit([change("o2")], location.zero + 1)


async def test_concurrent_commits_are_decided_in_order_each_on_its_own_base_revision(location: StoreLocation) -> None:
    async with location.open() as store, open_follower(store) as follower:
        bases = [0, 1, 1, 2, 0, 3]
        results = await asyncio.gather(
            *(store.commit([change(f"o{n}")], location.zero + base_revision) for n, base_revision in enumerate(bases)),
            return_exceptions=True,
        )
        assert [result - location.zero if isinstance(result, int) else type(result) for result in results] == [
            1,
            2,
            StoreConflict,
            3,
            StoreConflict,
            4,
        ]
        assert {key.id for key in current_listings(await follower.reach(location.zero + 4))} == {"o0", "o1", "o3", "o5"}
        assert current_listings(await current_snapshot(store)) == current_listings(follower.snapshot)


async def test_a_cancelled_commit_does_not_affect_others(location: StoreLocation) -> None:
    async with location.open() as store:
        commits = [asyncio.create_task(store.commit([change(f"o{n}")], location.zero + n)) for n in range(3)]
        await asyncio.sleep(0)
        commits[1].cancel()
        results = await asyncio.gather(*commits, return_exceptions=True)
        assert results[0] == location.zero + 1
        assert results[2] == location.zero + 3 or isinstance(results[2], StoreConflict)
        assert (await current_snapshot(store)).revision == (await store.history(None, None, 1))[0].revision


async def test_a_follower_that_is_too_far_behind_gets_the_full_state(location: StoreLocation) -> None:
    async with location.open() as store, open_follower(store) as follower:
        await follower.next()
        last = MAX_QUEUED_BATCHES + 5
        await asyncio.gather(*(store.commit([change("o1", 1 + n)], location.zero + n) for n in range(last)))
        assert isinstance(await follower.next(), FullState)
        assert follower.snapshot.revision == location.zero + last
        await store.commit([change("o1", None)], location.zero + last)
        assert current_listings(await follower.reach(location.zero + last + 1)) == {}
        assert follower.full_states == 2


async def test_a_follower_that_is_closed_leaves_nothing_behind(location: StoreLocation) -> None:
    async with location.open() as store:
        async with open_follower(store) as follower:
            await follower.next()
            waiting = asyncio.create_task(follower.next())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        before = _running_tasks()
        assert await store.commit([change("o1")], location.zero) == location.zero + 1
        deadline = asyncio.get_running_loop().time() + 10.0
        while more := _running_tasks() - before:  # Tasks that the store itself starts end soon.
            assert asyncio.get_running_loop().time() < deadline, more
            await asyncio.sleep(0.01)


def _running_tasks() -> Counter[str]:
    """Returns how many tasks run, by their coroutine. A store may have replaced a task by a new one."""
    return Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())


async def test_a_restart_keeps_what_was_acknowledged(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.commit([change("o1"), change("o2")], location.zero)
        await store.commit([change("o2", None)], location.zero + 1)
        before, history = await current_snapshot(store), await store.history(None, None, 10)
    async with location.open() as store:
        after = await current_snapshot(store)
        assert (after.epoch, after.revision, current_listings(after)) == (
            before.epoch,
            before.revision,
            current_listings(before),
        )
        assert await store.history(None, None, 10) == history


async def test_revisions_continue_after_all_instances_were_removed_and_a_restart(location: StoreLocation) -> None:
    written = 0
    for _ in range(3):
        async with location.open() as store:
            for port in (8000, None):
                assert await store.commit([change("o1", port)], location.zero + written) == location.zero + written + 1
                written += 1


async def test_history_is_newest_first_of_the_requested_service_and_instance(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.commit([change("o1"), change("o1", service="users")], location.zero)
        await store.commit([change("o2")], location.zero + 1)
        await store.commit([change("o1", None)], location.zero + 2)

        async def history_of(service: str | None, id: str | None, limit: int) -> list[str]:
            found = await store.history(service, id, limit)
            return [
                f"{recorded.revision - location.zero} {recorded.key} {recorded.status}".strip() for recorded in found
            ]

        assert await history_of(None, None, 9) == [
            "3 orders/o1",
            "2 orders/o2 passing",
            "1 users/o1 passing",
            "1 orders/o1 passing",
        ]
        assert await history_of(None, None, 2) == ["3 orders/o1", "2 orders/o2 passing"]
        assert await history_of("orders", None, 2) == ["3 orders/o1", "2 orders/o2 passing"]
        assert await history_of("orders", "o1", 9) == ["3 orders/o1", "1 orders/o1 passing"]
        assert await history_of(None, "o1", 2) == ["3 orders/o1", "1 users/o1 passing"]
        assert await history_of("nobody", None, 9) == await history_of("orders", "o9", 9) == []
        assert await history_of(None, None, 0) == await history_of(None, None, -1) == []


async def test_history_is_bounded_and_keeps_the_newest(location: StoreLocation) -> None:
    async with location.open() as store:
        many, revisions = 500, [location.zero]
        for n in range((MAX_HISTORY_PER_SERVICE + SLACK) // many + 2):
            batch = [change(f"o{n}", 8000 + port) for port in range(many)]
            revisions.append(await store.commit(batch, revisions[-1]))
        history = await store.history(None, None, 10 * MAX_HISTORY_PER_SERVICE)
        assert MAX_HISTORY_PER_SERVICE <= len(history) <= MAX_HISTORY_PER_SERVICE + SLACK
        newest = [revisions[-1 - n // many] for n in range(len(history))]
        assert [recorded.revision for recorded in history] == newest


async def test_the_history_of_a_service_never_displaces_that_of_another(location: StoreLocation) -> None:
    async with location.open() as store:
        revision = await store.commit([change("v1", service="victim")], location.zero)
        revision = await store.commit([change("v1", None, service="victim")], revision)
        for n in range(22):
            revision = await store.commit([change(f"f{n}", 8000 + port, "flap") for port in range(500)], revision)
        await store.commit([change("v2", service="other"), change("f1", service="flap")], revision)
    async with location.open() as store:
        assert [recorded.status for recorded in await store.history("victim", None, 9)] == ["", "passing"]
        assert [recorded.key.id for recorded in await store.history("other", None, 9)] == ["v2"]
        assert (
            MAX_HISTORY_PER_SERVICE <= len(await store.history("flap", None, 20_000)) <= MAX_HISTORY_PER_SERVICE + SLACK
        )
        newest = await store.history(None, None, 20_000)
        assert {str(recorded.key) for recorded in newest[:2]} == {"other/v2", "flap/f1"}
        assert {recorded.key.service for recorded in newest} == {"victim", "other", "flap"}


async def test_a_batch_of_any_size_is_delivered_as_one(location: StoreLocation) -> None:
    async with location.open() as store, open_follower(store) as follower:
        await follower.next()
        many = [change(f"o{n}", 8000 + n) for n in range(1_000)]
        edits = [put_route(f"r{n}", b'{"x":"' + b"x" * 50_000 + b'"}') for n in range(50)]
        revision = await store.commit(many, location.zero, edits)
        batch = await follower.next()
        assert (batch.revision, len(current_listings(follower.snapshot))) == (revision, 1_000)
        assert len(follower.snapshot.documents) == 50
        assert follower.snapshot.documents == (await current_snapshot(store)).documents
        assert {recorded.revision for recorded in await store.history(None, None, 2_000)} == {revision}


async def test_a_reachable_store_has_no_age(location: StoreLocation) -> None:
    async with location.open() as store:
        assert store.age() < 5.0


async def test_a_closed_store_is_unavailable_and_may_be_closed_again(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.commit([change("o1")], location.zero)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.commit([change("o2")], location.zero + 1)
    with pytest.raises(StoreUnavailable):
        await store.confirm(location.zero + 1)
    with pytest.raises(StoreUnavailable):
        await store.history(None, None, 1)
    with pytest.raises(StoreUnavailable):
        await current_snapshot(store)


async def test_commits_that_wait_when_the_store_closes_are_written_or_refused(location: StoreLocation) -> None:
    async with location.open() as store:
        commits = [asyncio.create_task(store.commit([change(f"o{n}")], location.zero + n)) for n in range(50)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*commits, return_exceptions=True)
    written = [result for result in results if isinstance(result, int)]
    assert all(isinstance(result, int | StoreUnavailable | StoreConflict) for result in results)
    async with location.open() as store:
        assert (await current_snapshot(store)).revision == location.zero + len(written)


async def test_documents_are_kept_in_the_same_order_as_the_catalog(location: StoreLocation) -> None:
    async with location.open() as store, open_follower(store) as follower:
        await follower.next()
        assert (
            await store.commit([change("o1")], location.zero, [put_route("r1"), put_route("r2")]) == location.zero + 1
        )
        assert (
            await store.commit(
                [], location.zero + 1, [put_route("r1", b'{"hosts":["a.example"]}'), withdraw_route("r2")]
            )
            == location.zero + 2
        )
        before = await follower.reach(location.zero + 2)
        assert before.documents == (await current_snapshot(store)).documents
    async with location.open() as store:
        after = await current_snapshot(store)
        assert after.documents.by_kind == before.documents.by_kind
        assert [document.body for document in after.documents.of_kind(DocumentKind.ROUTE)] == [
            b'{"hosts":["a.example"]}'
        ]
        assert current_listings(after).keys() == {Key("orders", "o1")}


async def test_a_stale_batch_leaves_the_documents_alone(location: StoreLocation) -> None:
    async with location.open() as store:
        await store.commit([], location.zero, [put_route("r1")])
        with pytest.raises(StoreConflict):
            await store.commit([], location.zero, [withdraw_route("r1")])
        assert len((await current_snapshot(store)).documents) == 1


async def test_the_history_of_a_document_is_newest_first_and_survives_a_restart(location: StoreLocation) -> None:
    first = put_route("r1", b'{"hosts":["a.example"],"to":[1]}', reason="new")
    second = put_route("r1", b'{"to":[2],"priority":1}', first)
    async with location.open() as store:
        assert await store.edits(INTENT_KINDS, None, 9) == []
        await store.commit([], location.zero, [first, put_route("r2")])
        await store.commit([], location.zero + 1, [second])
        await store.commit([], location.zero + 2, [withdraw_route("r1", second)])
    async with location.open() as store:
        assert [
            (edit.revision - location.zero, edit.kind, dict(edit.before), dict(edit.after), edit.provenance.reason)
            for edit in await store.edits([DocumentKind.ROUTE], "r1", 9)
        ] == [
            (3, "withdrawn", {"to": b"[2]", "priority": b"1"}, {}, ""),
            (2, "changed", {"hosts": b'["a.example"]', "to": b"[1]"}, {"to": b"[2]", "priority": b"1"}, ""),
            (1, "declared", {}, {"hosts": b'["a.example"]', "to": b"[1]"}, "new"),
        ]

        async def history_of(name: str | None, limit: int, kinds: Collection[DocumentKind] = INTENT_KINDS) -> list[str]:
            return [f"{edit.key} {edit.kind}" for edit in await store.edits(kinds, name, limit)]

        assert sorted(await history_of(None, 9))[-1] == "route r2 declared"
        assert await history_of("r1", 2) == ["route r1 withdrawn", "route r1 changed"]
        assert await history_of("r2", 9) == ["route r2 declared"]
        assert (
            await history_of(None, 9, [DocumentKind.UPSTREAM])
            == await history_of(None, 9, [])
            == await history_of("r", 9)
            == []
        )
        assert await history_of(None, 0) == await history_of(None, -1) == []


async def test_all_edits_of_a_document_in_one_batch_are_recorded_and_the_last_one_counts(
    location: StoreLocation,
) -> None:
    first = put_route("r1", b'{"n":1}')
    async with location.open() as store:
        await store.commit([], location.zero, [first, put_route("r1", b'{"n":2}', first)])
        assert [
            document.body for document in (await current_snapshot(store)).documents.of_kind(DocumentKind.ROUTE)
        ] == [b'{"n":2}']
        assert [edit.after["n"] for edit in await store.edits(INTENT_KINDS, "r1", 9)] == [b"2", b"1"]


async def test_a_batch_of_a_thousand_long_edits_of_one_document_is_written(location: StoreLocation) -> None:
    long = [put_route("r1", b'{"n":%d,"to":"%b"}' % (n, b"x" * 3_900)) for n in range(1_000)]
    edits = [Edit(edit.key, edit.document, edit.provenance, before.document) for before, edit in pairwise(long)]
    async with location.open() as store:
        await store.commit([], location.zero, edits)
        found = await store.edits(INTENT_KINDS, "r1", 200)
        assert [edit.after["n"] for edit in found] == [b"%d" % n for n in range(999, 899, -1)]


async def test_the_history_of_documents_is_bounded_and_one_document_never_displaces_another(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_EDITS_PER_DOCUMENT", 3)
    monkeypatch.setattr(documents, "MAX_EDITS", 5)
    monkeypatch.setattr(edit_history, "EDITS_BETWEEN_TRIMS", 1)
    async with location.open() as store, open_follower(store) as follower:
        await follower.next()

        async def write(edit: Edit) -> None:
            revision = await store.commit([], follower.snapshot.revision, [edit])
            await follower.reach(revision)

        async def history_of(name: str | None = None) -> list[str]:
            return [edit.key.name + edit.after["n"].decode() for edit in await store.edits(INTENT_KINDS, name, 9)]

        await write(put_route("rare", b'{"n":0}'))
        for n in range(9):
            await write(put_route("often", b'{"n":%d}' % n))
        assert await history_of() == ["often8", "often7", "often6", "rare0"]
        for name in "abc":
            await write(put_route(name, b'{"n":1}'))
        assert await history_of() == ["c1", "b1", "a1", "often8", "often7"]
        assert await history_of("rare") == []


async def test_history_names_fields_with_long_values_without_the_values(location: StoreLocation) -> None:
    long = b'"' + b"x" * MAX_RECORD_BYTES + b'"'
    async with location.open() as store:
        await store.commit([], location.zero, [put_route("r1", b'{"to":%b,"n":1}' % long)])
        (only,) = await store.edits(INTENT_KINDS, "r1", 9)
        assert (dict(only.after), only.omitted) == ({"n": b"1"}, ("to",))


async def test_the_history_of_tokens_is_apart_from_that_of_routes_and_has_no_hash_of_a_secret(
    location: StoreLocation,
) -> None:
    first = put_token("web@a.b", b'{"id":"1","scopes":["read:*"],"secrets":[{"hash":"h1"}]}')
    second = put_token("web@a.b", b'{"id":"1","scopes":["read:*"],"secrets":[{"hash":"h2"},{"hash":"h1"}]}', first)
    gone = Edit(first.key, None, second.provenance, second.document)
    async with location.open() as store:
        await store.commit([], location.zero, [put_route("web"), first])
        await store.commit([], location.zero + 1, [second])
        await store.commit([], location.zero + 2, [gone])
    async with location.open() as store:
        assert [edit.key.kind for edit in await store.edits(INTENT_KINDS, None, 9)] == [DocumentKind.ROUTE]
        found = await store.edits(ACCESS_KINDS, None, 9)
        assert [(edit.kind, edit.key.name, dict(edit.before), dict(edit.after), [*edit.omitted]) for edit in found] == [
            ("withdrawn", "web@a.b", {"id": b'"1"', "scopes": b'["read:*"]'}, {}, ["secrets"]),
            ("changed", "web@a.b", {}, {}, ["secrets"]),
            ("declared", "web@a.b", {}, {"id": b'"1"', "scopes": b'["read:*"]'}, ["secrets"]),
        ]
        assert len(await store.edits([*DocumentKind], None, 9)) == 4
        assert await store.edits([DocumentKind.INVITE], None, 9) == await store.edits([], None, 9) == []
        assert len(await store.edits([*DocumentKind], "web", 9)) == 1


async def test_an_unrecorded_edit_takes_effect_and_is_not_in_the_history(location: StoreLocation) -> None:
    first = put_token("a", b'{"used":0}')
    used = put_token("a", b'{"used":1}', first, is_recorded=False)
    async with location.open() as store:
        await store.commit([], location.zero, [first, put_token("b", b'{"used":0}')])
        await store.commit([], location.zero + 1, [used])
        assert [
            document.body for document in (await current_snapshot(store)).documents.of_kind(DocumentKind.TOKEN)
        ] == [
            b'{"used":1}',
            b'{"used":0}',
        ]
        assert sorted((edit.key.name, edit.kind) for edit in await store.edits(ACCESS_KINDS, None, 9)) == [
            ("a", "declared"),
            ("b", "declared"),
        ]
