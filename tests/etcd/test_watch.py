"""Watches on an etcd that answers no progress request for a start in the future, lags, or went back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from random import Random

import pytest

from adsum.clock import SystemClock
from adsum.etcd import client as connection_of
from adsum.etcd import watch
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient as Connection
from adsum.etcd.errors import EtcdUnreachable
from adsum.etcd.watch import EtcdWatchEvent, ResyncRequired, RevisionEvents, WatchInterrupted, WatchProgress
from tests.support.fake_etcd import FakeEtcd


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEtcd]:
    """One with three revisions under the prefix, the last of which is 4."""
    monkeypatch.setattr(watch, "PROGRESS_INTERVAL", 0.05)
    with FakeEtcd() as etcd:
        for number in range(3):
            etcd.put(b"p/key", b"%d" % number)
        yield etcd


@asynccontextmanager
async def watched(etcd: FakeEtcd, since: int) -> AsyncIterator[AsyncGenerator[EtcdWatchEvent, None]]:
    connection = Connection(EtcdAddress.parse(etcd.url), Random())
    try:
        async with (
            asyncio.timeout(20.0),
            aclosing(watch.watch(connection, b"p/", since, SystemClock(), Random())) as told,
        ):
            yield told
    finally:
        await connection.close()


async def test_an_idle_watch_from_the_next_revision_reports_progress_and_repeats_nothing(etcd: FakeEtcd) -> None:
    async with watched(etcd, 5) as told:
        first = await anext(told)
        assert isinstance(first, WatchProgress)
        assert first.header.revision == 4
        etcd.put(b"p/key", b"new")
        async for each in told:
            if not isinstance(each, WatchProgress):
                break
        assert isinstance(each, RevisionEvents)
        assert [event.key_value.value for event in each.events if event.key_value is not None] == [b"new"]


async def test_a_watch_from_an_earlier_revision_yields_all_later_events_and_no_earlier_ones(etcd: FakeEtcd) -> None:
    async with watched(etcd, 3) as told:
        seen = [await anext(told), await anext(told)]
        assert [each.revision for each in seen if isinstance(each, RevisionEvents)] == [3, 4]


async def test_a_broken_connection_is_replaced_and_reports_progress(etcd: FakeEtcd) -> None:
    async with watched(etcd, 5) as told:
        assert isinstance(await anext(told), WatchProgress)
        etcd.kill()
        etcd.start()
        kinds = [type(each) async for each in _until(told, 3)]
        assert WatchInterrupted in kinds
        assert kinds[-1] is WatchProgress


async def _until(told: AsyncGenerator[EtcdWatchEvent, None], fresh: int) -> AsyncIterator[EtcdWatchEvent]:
    """All until it was fresh so often after it broke."""
    broken = False
    async for each in told:
        yield each
        broken = broken or isinstance(each, WatchInterrupted)
        fresh -= broken and isinstance(each, WatchProgress)
        if not fresh:
            return


@pytest.mark.parametrize("left", [0, 1, 2])
async def test_an_etcd_with_a_lower_revision_is_reported_at_once(etcd: FakeEtcd, left: int) -> None:
    etcd.wipe()
    for _ in range(left):
        etcd.put(b"p/key", b"")
    async with watched(etcd, 5) as told:
        gone = await anext(told)
        assert isinstance(gone, ResyncRequired)
        assert "wiped or restored" in gone.reason


async def test_a_lagging_member_reports_no_progress_and_is_not_taken_for_a_wiped_etcd(etcd: FakeEtcd) -> None:
    etcd.lag = 1
    etcd.put(b"q", b"")
    async with watched(etcd, 6) as told:
        behind = await anext(told)
        assert isinstance(behind, WatchInterrupted)
        assert "revision 4, behind 5" in behind.reason
        etcd.lag = 0
        assert isinstance(await anext(told), WatchProgress)


@pytest.fixture
def hung(etcd: FakeEtcd) -> Iterator[FakeEtcd]:
    """Another member of the same cluster, which answers nothing."""
    with FakeEtcd() as member:
        member.state = etcd.state
        member.pause()
        yield member


@asynccontextmanager
async def asking_first(hung: FakeEtcd, other: FakeEtcd) -> AsyncIterator[Connection]:
    connection = Connection(EtcdAddress.parse(f"etcd://{hung.host_port},{other.host_port}"), Random())
    if connection.host != hung.host_port:
        connection.demote(connection.host)
    try:
        yield connection
    finally:
        await connection.close()


SOON = 2.5
"""Seconds; a member that hangs costs one, and the machine may be busy."""


async def test_a_hanging_member_delays_one_read_by_about_a_second(hung: FakeEtcd, etcd: FakeEtcd) -> None:
    async with asking_first(hung, etcd) as connection:
        async with asyncio.timeout(connection_of.FIRST_MEMBER_TIMEOUT + SOON):
            assert await connection.get(b"p/key") is not None
        assert connection.host == etcd.host_port, "it is asked last from now on"


async def test_a_hanging_member_delays_a_watch_by_about_a_second(hung: FakeEtcd, etcd: FakeEtcd) -> None:
    async with asking_first(hung, etcd) as connection, aclosing(_told(connection)) as told:
        async with asyncio.timeout(watch.SHORT_SILENCE_TIMEOUT + SOON):
            assert isinstance(await anext(told), WatchInterrupted)
            assert isinstance(await anext(told), WatchProgress)


async def test_a_lease_is_renewed_while_a_member_hangs(hung: FakeEtcd, etcd: FakeEtcd) -> None:
    async with asking_first(etcd, hung) as connection:
        lease = await connection.grant(5)
        connection.demote(etcd.host_port)
        assert connection.host == hung.host_port
        async with asyncio.timeout(connection_of.WRITE_MEMBER_TIMEOUT + SOON):
            with pytest.raises(EtcdUnreachable):
                await connection.keep_alive(lease)
            await connection.keep_alive(lease)


async def test_slow_members_get_more_time(hung: FakeEtcd, etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_of, "FIRST_MEMBER_TIMEOUT", 0.01)
    for member in (hung, etcd):
        member.resume()
        member.delay = 0.15
    async with asking_first(hung, etcd) as connection:
        assert await connection.get(b"p/key") is not None


def _told(connection: Connection) -> AsyncGenerator[EtcdWatchEvent, None]:
    return watch.watch(connection, b"p/", 5, SystemClock(), Random())
