"""The store on etcd beyond the contract: an etcd that is restored, wiped, protected, or changed by other programs."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from adsum.core.catalog.changes import Batch, FullState
from adsum.core.errors import StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.core.model import Key
from adsum.core.provenance import Cause
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdUnreachable
from adsum.etcd.values import Condition, Delete, Operation, Put, TransactionResult, prefix_end
from adsum.stores.etcd import EtcdStore
from adsum.stores.etcd.catalog_follower import CatalogFollower
from adsum.stores.etcd.layout import MAX_OPERATIONS_PER_TRANSACTION, Head, Layout
from adsum.stores.etcd.write_turns import WriteTurns
from tests.stores.support import (
    StreamFollower,
    change,
    current_listings,
    current_snapshot,
    follow_in_background,
    open_follower,
    put_route,
)
from tests.support.etcd_process import ADSUM_PERMISSION, EtcdProcess, encode_field
from tests.support.programs import need


def _url(etcd: EtcdProcess) -> str:
    return f"{etcd.url}?prefix=/{secrets.token_hex(4)}"


@asynccontextmanager
async def opened(url: str, node: str = "") -> AsyncIterator[EtcdStore]:
    store = EtcdStore.from_url(url)
    sharding = store.join(node) if node else None
    await store.open()
    if sharding is not None:
        await sharding.start()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[EtcdClient]:
    connection = EtcdClient(EtcdAddress.parse(url), Random())
    try:
        yield connection
    finally:
        await connection.close()


async def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(40.0):
        while not condition():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_two_nodes_write_in_one_order_and_see_each_others_batches(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    async with (
        opened(url) as one,
        opened(url) as other,
        open_follower(one) as follower,
        open_follower(other) as another,
    ):
        await follower.next()
        zero = (await current_snapshot(one)).revision
        first = await one.commit([change("o1")], zero)
        with pytest.raises(StoreConflict):
            await other.commit([change("o2")], zero)
        await another.reach(first)
        second = await other.commit([change("o2"), change("o1", None)], first)
        assert (
            current_listings(await follower.reach(second))
            == current_listings(await another.reach(second))
            == current_listings(await current_snapshot(one))
        )
        assert [recorded.key.id for recorded in await one.history(None, None, 9)] == ["o1", "o2", "o1"]
        removal = follower.snapshot.service("orders").recent_changes[-1]
        assert (removal.listed, removal.provenance.cause, removal.provenance.actor) == (
            False,
            Cause.DEREGISTERED,
            "tester",
        )


async def test_a_node_that_has_not_seen_another_nodes_batch_confirms_nothing(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _url(etcd)
    monkeypatch.setattr(CatalogFollower, "start", lambda follower: None)
    async with opened(url) as one, opened(url) as other:
        zero = (await current_snapshot(one)).revision
        await one.confirm(zero)
        first = await other.commit([change("o1")], zero)
        with pytest.raises(StoreConflict, match=str(first)):
            await one.confirm(zero)
        await other.confirm(first)


async def test_while_etcd_hangs_or_is_away_nothing_is_confirmed_and_the_error_asks_for_a_retry(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        async with opened(etcd.url, "n1") as store, follow_in_background(store) as follower:
            await _list_new_instance(store, follower)
            base_revision = follower.snapshot.revision
            for away, back in ((etcd.pause, etcd.resume), (etcd.kill, etcd.start)):
                away()
                async with asyncio.timeout(30.0):
                    with pytest.raises(StoreUnavailable) as refused:
                        await store.confirm(base_revision)
                assert refused.value.retry_after
                back()
                etcd.wait()
                await store.confirm(base_revision)


async def test_a_key_deleted_in_etcd_removes_its_instance_and_an_unreadable_key_is_left_out(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    layout = Layout(EtcdAddress.parse(url).prefix.encode())
    async with opened(url) as store, connected(url) as connection, open_follower(store) as follower:
        revision = await store.commit([change("o1"), change("o2")], (await current_snapshot(store)).revision)
        await follower.reach(revision)
        await connection.commit((), [Delete(layout.key(Key("orders", "o1")))])
        batch = await follower.next()
        assert isinstance(batch, Batch)
        assert [(removal.key.id, removal.listing, removal.provenance.actor) for removal in batch.changes] == [
            ("o1", None, "etcd")
        ]
        await connection.put(layout.key(Key("orders", "junk")), b"{")
        await connection.put(layout.catalog + b"somebody's", b"1")
        await follower.next()
        await follower.next()
        assert await store.commit([change("o3")], follower.snapshot.revision) > revision, "commits continue from there"
        assert {key.id for key in current_listings(await current_snapshot(store))} == {"o2", "o3"}


async def test_deleting_everything_in_etcd_begins_another_history(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    prefix = EtcdAddress.parse(url).prefix.encode()
    async with opened(url, "n1") as store, connected(url) as connection, follow_in_background(store) as follower:
        await _list_new_instance(store, follower)
        epoch = follower.snapshot.epoch
        await connection.commit((), [Delete(prefix, prefix_end(prefix))])
        await until(lambda: follower.snapshot.epoch != epoch)
        assert follower.snapshot.instance_count == 0
        await _list_new_instance(store, follower)


async def test_a_write_without_an_answer_is_found_in_etcd_and_not_repeated(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"before": True, "after": True}
    real = EtcdClient.commit

    async def silent(
        self: EtcdClient, when: Sequence[Condition], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TransactionResult:
        if not otherwise:  # The health probe, not a write of the store.
            return await real(self, when, then)
        if answers.pop("before", False):
            raise EtcdUnreachable("lost on the way there")
        result = await real(self, when, then, otherwise)
        if answers.pop("after", False):
            raise EtcdUnreachable("lost on the way back")
        return result

    async with opened(_url(etcd)) as store, open_follower(store) as follower:
        zero = (await current_snapshot(store)).revision
        monkeypatch.setattr(EtcdClient, "commit", silent)
        with pytest.raises(StoreUnavailable, match="may have taken it"):
            await store.commit([change("o1")], zero)
        answers["after"] = True
        revision = await store.commit([change("o2")], (await follower.reach(zero + 1)).revision)
        assert len(await store.history(None, None, 9)) == 2
        assert (await follower.reach(revision)).instance_count == 2


async def test_departures_of_many_services_at_once_fit_into_transactions(etcd: EtcdProcess) -> None:
    names = [f"s{number}" for number in range(MAX_OPERATIONS_PER_TRANSACTION)]
    async with opened(_url(etcd)) as store, open_follower(store) as follower:
        zero = (await current_snapshot(store)).revision
        listed = await store.commit([change("i", service=name) for name in names], zero)
        removed = await store.commit([change("i", None, service=name) for name in names], listed)
        assert listed == zero + 2, "two parts, since each service has a log entry"
        assert removed == listed + 3, "three parts, since each removal takes three operations"
        await follower.reach(removed)
        assert set((await current_snapshot(store)).services) == set(names)


async def test_the_written_parts_of_a_batch_whose_writer_died_are_published_after_a_while(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    layout = Layout(EtcdAddress.parse(url).prefix.encode())
    async with opened(url) as store, connected(url) as connection, open_follower(store) as follower:
        full_state = await follower.next()
        assert isinstance(full_state, FullState)
        head = Head(full_state.epoch, "b1", full_state.revision, part=1, parts=3)
        (part,) = layout.parts([change("o1")], [], 1)
        result = await connection.commit((), [Put(layout.head, msgspec.json.encode(head)), *part.operations])
        assert (await follower.reach(result.header.revision)).instance_count == 1
        assert await store.commit([change("o2")], result.header.revision) > result.header.revision


async def test_after_a_failed_check_of_the_history_the_watch_continues_after_the_last_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = CatalogFollower._is_the_same_history, []

    async def silent_once(self: CatalogFollower) -> bool:
        calls.append(self)
        if len(calls) == 1:
            raise EtcdUnreachable("away again")
        return await real(self)

    monkeypatch.setattr(CatalogFollower, "_is_the_same_history", silent_once)
    with EtcdProcess(tmp_path) as etcd:
        async with opened(etcd.url) as store, follow_in_background(store) as follower:
            for _ in range(3):
                await _list_new_instance(store, follower)
            last = follower.snapshot.revision
            etcd.kill()
            etcd.start()
            await until(lambda: calls)
            etcd.compact(last)  # Earlier events are compacted.
            await _list_new_instance(store, follower)
            await until(lambda: len(calls) > 1)
            assert follower.full_states == 1, "the catalog is not read anew, and no batch comes twice"


async def test_a_wiped_etcd_is_another_history_and_is_followed(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        async with opened(etcd.url, "n1") as store, follow_in_background(store) as follower:
            for _ in range(3):
                await _list_new_instance(store, follower)
            before = follower.snapshot
            etcd.kill()
            with pytest.raises(StoreUnavailable):
                await store.commit([change("late")], before.revision)
            etcd.wipe()
            etcd.start()
            await until(lambda: follower.snapshot.epoch != before.epoch)
            assert follower.snapshot.instance_count == 0
            await _list_new_instance(store, follower)


async def test_a_restored_etcd_is_another_history(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        async with opened(etcd.url, "n1") as store, follow_in_background(store) as follower:
            first = await _list_new_instance(store, follower)
            etcd.kill()
            shutil.copytree(etcd.data, tmp_path / "backup")
            etcd.start()
            assert await _list_new_instance(store, follower) != first
            epoch = follower.snapshot.epoch
            etcd.kill()
            etcd.wipe()
            (tmp_path / "backup").rename(etcd.data)
            etcd.start()
            await until(lambda: follower.snapshot.epoch != epoch)
            assert {key.id for key in current_listings(follower.snapshot)} == {first}, "another history"
            await _list_new_instance(store, follower)


async def _list_new_instance(store: EtcdStore, follower: StreamFollower) -> str:
    """Lists an instance, trying until it succeeds as registrars do. Returns its id."""
    id = secrets.token_hex(4)
    async with asyncio.timeout(40.0):
        while True:
            try:
                await store.commit([change(id)], follower.snapshot.revision, [put_route("r")])
            except (StoreUnavailable, StoreConflict):
                await asyncio.sleep(0.1)
            else:
                await until(lambda: id in {key.id for key in current_listings(follower.snapshot)})
                return id


async def test_a_later_format_is_refused_with_the_remedy(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    async with opened(url) as store:
        head = Head((await current_snapshot(store)).epoch, "b1", format=99)
    async with connected(url) as connection:
        await connection.put(Layout(EtcdAddress.parse(url).prefix.encode()).head, msgspec.json.encode(head))
    with pytest.raises(StoreOpenFailed, match=r"later version of Adsum .*layout is 99, .*here 1\): run that version"):
        async with opened(url):
            pass


async def test_a_running_node_refuses_writes_after_a_later_version_wrote(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    async with opened(url) as store, follow_in_background(store) as follower:
        head = Head((await current_snapshot(store)).epoch, "b1", format=99)
        async with connected(url) as connection:
            await connection.put(Layout(EtcdAddress.parse(url).prefix.encode()).head, msgspec.json.encode(head))
        for attempt in (
            store.commit([change("o1")], follower.snapshot.revision),
            store.confirm(follower.snapshot.revision),
        ):
            with pytest.raises(StoreUnavailable, match=r"layout is 99"):
                await attempt
        await until(lambda: "layout is 99" in store.condition().get("trouble", ""))


async def test_an_unreachable_etcd_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsum.stores.etcd.store.OPEN_TIMEOUT", 0.5)
    with pytest.raises(StoreUnavailable, match=r"etcd://127\.0\.0\.1:1\S* does not answer"):
        async with opened("etcd://user:secret@127.0.0.1:1"):
            pass


async def test_a_user_with_permission_on_the_prefix_alone_is_enough(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        etcd.enable_auth()
        for login, expected in (("", "user name is empty"), ("adsum:wrong@", "invalid user ID or password")):
            with pytest.raises(StoreOpenFailed, match=expected) as refused:
                async with opened(f"etcd://{login}{etcd.host_port}"):
                    pass
            assert "wrong" not in str(refused.value)
        with pytest.raises(StoreOpenFailed, match="permission denied"):
            async with opened(f"etcd://adsum:s3cret@{etcd.host_port}?prefix=/elsewhere/"):
                pass
        async with (
            opened(f"etcd://adsum:s3cret@{etcd.host_port}", "n1") as store,
            follow_in_background(store) as follower,
        ):
            await _list_new_instance(store, follower)
            etcd.kill()  # An etcd that restarts forgets its tokens.
            etcd.start()
            await _list_new_instance(store, follower)


async def test_a_node_reports_that_etcd_refuses_its_writes_while_its_watch_and_session_continue(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        etcd.enable_auth()
        async with (
            opened(f"etcd://adsum:s3cret@{etcd.host_port}", "n1") as store,
            follow_in_background(store) as follower,
        ):
            await _list_new_instance(store, follower)
            assert (store.isolated_seconds(), "trouble" in store.condition()) == (0.0, False)
            etcd.call_as_root(
                "Auth/RoleRevokePermission",
                encode_field(1, b"registry") + encode_field(2, b"/adsum/") + encode_field(3, b"/adsum0"),
            )
            await until(store.isolated_seconds)
            assert "permission denied" in store.condition()["trouble"]
            assert store.age() < 5.0
            etcd.call_as_root(
                "Auth/RoleGrantPermission", encode_field(1, b"registry") + encode_field(2, ADSUM_PERMISSION)
            )
            await until(lambda: not store.isolated_seconds())
            assert "trouble" not in store.condition()
            await _list_new_instance(store, follower)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens timeouts: an etcd never answers a connection with the wrong TLS options."""
    monkeypatch.setattr("adsum.etcd.client.CALL_TIMEOUT", 1.2)
    monkeypatch.setattr("adsum.stores.etcd.store.OPEN_TIMEOUT", 4.0)


@pytest.mark.usefixtures("impatient")
async def test_tls_works_with_certificates_of_both_sides_and_errors_name_the_missing_option(tmp_path: Path) -> None:
    files = _certificates(tmp_path)
    options = ["--cert-file", files["server.pem"], "--key-file", files["server.key"]]
    options += ["--client-cert-auth", "--trusted-ca-file", files["ca.pem"]]
    with EtcdProcess(tmp_path, *options, scheme="https") as etcd:
        query = f"ca={files['ca.pem']}&cert={files['client.pem']}&key={files['client.key']}"
        async with opened(f"{etcd.url}?{query}", "n1") as store, open_follower(store) as follower:
            revision = await store.commit([change("o1")], (await current_snapshot(store)).revision)
            assert (await follower.reach(revision)).instance_count == 1
        for wrong, expected in (
            ("", "speaks TLS: add tls=true"),
            ("?tls=true", "not of a public authority: add ca=FILE"),
            (f"?ca={files['ca.pem']}", "wants a client's certificate: add cert and key"),
            (f"?ca={files['client.pem']}", "can't be verified with"),
            (f"?{query.replace('client.key', 'server.key')}", "the key must be that of cert"),
            ("?ca=/nowhere.pem", "No such file"),
        ):
            with pytest.raises(StoreOpenFailed, match=expected):
                async with opened(f"{etcd.url}{wrong}"):
                    pass


@pytest.mark.usefixtures("impatient")
async def test_errors_name_a_missing_authority_and_tls_options_for_a_member_without_tls(tmp_path: Path) -> None:
    files = _certificates(tmp_path)
    options = ["--cert-file", files["server.pem"], "--key-file", files["server.key"]]
    with EtcdProcess(tmp_path, *options, scheme="https") as etcd:
        with pytest.raises(StoreOpenFailed, match="add ca=FILE"):
            async with opened(f"{etcd.url}?tls=true"):
                pass
        async with opened(f"{etcd.url}?ca={files['ca.pem']}"):
            pass
    with EtcdProcess(tmp_path, name="m2") as etcd, pytest.raises(StoreOpenFailed, match="speaks no TLS"):
        async with opened(f"{etcd.url}?tls=true"):
            pass


def _certificates(folder: Path) -> dict[str, str]:
    """Creates an authority and certificates signed by it. Returns the PEM files by name."""
    openssl = str(need("openssl"))

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=folder)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    run("req", "-x509", *curve, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        run("req", *curve[:-2], "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "names")
        run("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
    return {file.name: str(file) for file in folder.iterdir()}


async def test_a_node_without_a_session_may_not_write_until_it_has_a_new_one(etcd: EtcdProcess) -> None:
    async with opened(_url(etcd), "n1") as store, follow_in_background(store) as follower:
        await _list_new_instance(store, follower)
        membership: Any = store.__dict__["_membership"]
        async with connected(etcd.url) as connection:
            await connection.revoke(membership.__dict__["_session"].lease)
        with pytest.raises(StoreUnavailable, match="no session with etcd"):
            await store.commit([change("o2")], follower.snapshot.revision)
        await _list_new_instance(store, follower)


async def test_a_node_that_has_written_leaves_the_next_turn_to_another_one_that_writes(etcd: EtcdProcess) -> None:
    url = _url(etcd)
    async with (
        opened(url, "n1") as first,
        opened(url, "n2") as second,
        follow_in_background(first) as at_first,
        follow_in_background(second) as at_second,
    ):
        revision = await first.commit([change("a")], at_first.snapshot.revision)
        await first.wait_for_turn()  # No other node writes.
        await until(lambda: at_second.snapshot.revision == revision)
        revision = await second.commit([change("b")], revision)
        waiting = asyncio.create_task(second.wait_for_turn())
        await until(lambda: at_first.snapshot.revision == revision)
        await first.wait_for_turn()
        await first.commit([change("c")], revision)
        await waiting


async def test_a_node_that_always_comes_too_late_is_left_the_next_turn(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.stores.etcd.store.MAX_TURN_WAIT", 60.0)
    monkeypatch.setattr("adsum.stores.etcd.write_turns.REQUESTED_TURN", 60.0)
    url = _url(etcd)
    async with opened(url, "n1") as fast, opened(url, "n2") as slow, follow_in_background(slow) as at_slow:
        revision = outdated = (await current_snapshot(fast)).revision
        for id in ("a", "b", "c"):
            revision = await fast.commit([change(id)], revision)
        await until(lambda: at_slow.snapshot.revision == revision)
        assert await _has_turn(fast), "the slow one has not written, so nobody waits for it"
        for _ in range(2):
            with pytest.raises(StoreConflict):
                await slow.commit([change("d")], outdated)
        async with asyncio.timeout(10.0):
            while await _has_turn(fast):  # The watch brings the request.
                pass
        await slow.wait_for_turn()
        await slow.commit([change("d")], revision)
        await fast.wait_for_turn()


async def _has_turn(store: EtcdStore) -> bool:
    try:
        async with asyncio.timeout(0.05):
            await store.wait_for_turn()
    except TimeoutError:
        return False
    await asyncio.sleep(0)
    return True


async def test_a_node_whose_turn_never_comes_writes_in_any_case(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.stores.etcd.store.MAX_TURN_WAIT", 0.01)
    async with opened(_url(etcd), "n1") as store:
        monkeypatch.setattr(WriteTurns, "delay", lambda *_: 60.0)
        await store.wait_for_turn()


async def test_a_store_without_other_nodes_has_no_turns(etcd: EtcdProcess) -> None:
    async with opened(_url(etcd)) as store:
        await store.commit([change("a")], (await current_snapshot(store)).revision)
        await store.wait_for_turn()
