"""The store on each minor version of etcd: idle, killed, cut off, compacted, wiped and restored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from adsum.etcd import client, watch
from adsum.stores.etcd import EtcdStore
from tests.stores.support import StreamFollower, change, current_listings, follow_in_background
from tests.support.etcd_process import EtcdProcess
from tests.support.fake_etcd import FakeEtcd
from tests.support.tcp_proxy import TcpProxy

RECOVERY_TIMEOUT = 15.0
"""Seconds within which the store recovers. A node without etcd is not ready after as many seconds."""

AnyEtcd = EtcdProcess | FakeEtcd


@asynccontextmanager
async def followed(url: str) -> AsyncIterator[tuple[EtcdStore, StreamFollower]]:
    """An open store and a follower. The store has no session, so only the test itself writes to etcd."""
    store = EtcdStore.from_url(url)
    await store.open()
    try:
        async with follow_in_background(store) as follower:
            yield store, follower
    finally:
        await store.close()


async def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(RECOVERY_TIMEOUT):
        while not condition():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def list_instance(store: EtcdStore, follower: StreamFollower, id: str) -> None:
    """Lists an instance, and waits until the follower knows it."""
    revision = await store.commit([change(id)], follower.snapshot.revision)
    await until(lambda: follower.snapshot.revision >= revision)


def has_trouble(store: EtcdStore) -> bool:
    return "trouble" in store.condition()


async def until_recovered(store: EtcdStore) -> None:
    """Waits until etcd confirms again that nothing is newer than what is known."""
    await until(lambda: not has_trouble(store) and store.age() < 2 * watch.PROGRESS_INTERVAL)


def ids(follower: StreamFollower) -> set[str]:
    return {key.id for key in current_listings(follower.snapshot)}


async def test_an_idle_etcd_that_restarted_is_followed_in_the_same_epoch(each_etcd: AnyEtcd) -> None:
    async with followed(each_etcd.url) as (store, follower):
        await list_instance(store, follower, "o1")
        before = follower.snapshot
        each_etcd.kill()
        await until(lambda: has_trouble(store))
        each_etcd.start()
        await until_recovered(store)
        await list_instance(store, follower, "o2")
        assert (follower.snapshot.epoch, follower.full_states, ids(follower)) == (before.epoch, 1, {"o1", "o2"})


async def test_an_idle_etcd_that_was_cut_off_is_followed_in_the_same_epoch(each_etcd: AnyEtcd) -> None:
    proxy = await TcpProxy(each_etcd.port).open()
    try:
        async with followed(f"etcd://127.0.0.1:{proxy.port}") as (store, follower):
            await list_instance(store, follower, "o1")
            before = follower.snapshot
            proxy.partition()
            await until(lambda: has_trouble(store))
            proxy.heal()
            await until_recovered(store)
            await list_instance(store, follower, "o2")
            assert (follower.snapshot.epoch, follower.full_states, ids(follower)) == (before.epoch, 1, {"o1", "o2"})
    finally:
        await proxy.close()


async def test_a_catalog_whose_revision_is_compacted_is_followed(each_etcd: AnyEtcd) -> None:
    """Other programs wrote to etcd meanwhile, and earlier revisions are compacted."""
    async with followed(each_etcd.url) as (store, follower):
        await list_instance(store, follower, "o1")
        before = follower.snapshot
        each_etcd.kill()
        await until(lambda: has_trouble(store))
        each_etcd.start()
        each_etcd.wait()
        for key in (b"/elsewhere", b"/adsum/catalog/not-ours", b"/elsewhere"):
            each_etcd.put(key, b"")
        each_etcd.compact(before.revision + 3)
        await until_recovered(store)
        await list_instance(store, follower, "o2")
        assert (follower.snapshot.epoch, ids(follower)) == (before.epoch, {"o1", "o2"})
    async with followed(each_etcd.url) as (store, follower):
        each_etcd.kill()
        await until(lambda: has_trouble(store))
        each_etcd.start()
        await until_recovered(store)
        assert ids(follower) == {"o1", "o2"}


async def test_a_wiped_etcd_begins_a_new_epoch_without_a_write(each_etcd: AnyEtcd) -> None:
    async with followed(each_etcd.url) as (store, follower):
        for number in range(3):
            await list_instance(store, follower, f"o{number}")
        before = follower.snapshot
        each_etcd.kill()
        each_etcd.wipe()
        each_etcd.start()
        await until(lambda: follower.snapshot.epoch != before.epoch)
        await until_recovered(store)
        assert ids(follower) == set()
        await list_instance(store, follower, "new")


async def write_after_backup(each_etcd: AnyEtcd, store: EtcdStore, follower: StreamFollower) -> str:
    """Lists `o1`, makes a backup, lists `lost`, and kills etcd. Returns the epoch."""
    await list_instance(store, follower, "o1")
    each_etcd.kill()
    await until(lambda: has_trouble(store))
    each_etcd.save()
    each_etcd.start()
    await until_recovered(store)
    await list_instance(store, follower, "lost")
    each_etcd.kill()
    return follower.snapshot.epoch


async def test_a_restored_etcd_begins_a_new_epoch_without_a_write(each_etcd: AnyEtcd) -> None:
    async with followed(each_etcd.url) as (store, follower):
        epoch = await write_after_backup(each_etcd, store, follower)
        each_etcd.restore()
        each_etcd.start()
        await until(lambda: follower.snapshot.epoch != epoch)
        await until_recovered(store)
        assert ids(follower) == {"o1"}
        await list_instance(store, follower, "new")


async def test_a_restored_etcd_with_a_higher_revision_begins_a_new_epoch(each_etcd: AnyEtcd) -> None:
    async with followed(each_etcd.url) as (store, follower):
        epoch = await write_after_backup(each_etcd, store, follower)
        await until(lambda: has_trouble(store))
        each_etcd.restore()
        each_etcd.start()
        each_etcd.wait()
        for number in range(5):
            each_etcd.put(b"/elsewhere", b"%d" % number)
        await until(lambda: follower.snapshot.epoch != epoch)
        assert ids(follower) == {"o1"}


async def test_a_hanging_member_delays_a_write_by_about_a_second() -> None:
    with FakeEtcd() as one, FakeEtcd() as other:
        other.state = one.state
        async with followed(f"{one.url},{other.host_port}") as (store, follower):
            await list_instance(store, follower, "o1")
            used_host = store.__dict__["_etcd"].host
            (one if one.host_port == used_host else other).pause()
            async with asyncio.timeout(client.WRITE_MEMBER_TIMEOUT + 2.5):  # The machine may be busy.
                await store.commit([change("o2")], follower.snapshot.revision)
            await until(lambda: ids(follower) == {"o1", "o2"})
            await until_recovered(store)


@pytest.mark.parametrize("each_etcd", ["fake"], indirect=True)
async def test_a_hanging_member_is_followed_again_when_it_continues(each_etcd: AnyEtcd) -> None:
    async with followed(each_etcd.url) as (store, follower):
        await list_instance(store, follower, "o1")
        each_etcd.pause()
        await until(lambda: has_trouble(store))
        each_etcd.resume()
        await until_recovered(store)
        assert ids(follower) == {"o1"}
