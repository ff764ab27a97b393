"""Watches of an etcd that lags, was restored, or answers no progress request for a future start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from random import Random

import pytest

from adsum.clock import SystemClock
from adsum.etcd import client, watch
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdUnreachable
from adsum.etcd.watch import EtcdWatchEvent, ResyncRequired, RevisionEvents, WatchInterrupted, WatchProgress
from tests.support.fake_etcd import FakeEtcd


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEtcd]:
    """An etcd with three revisions under the prefix, up to revision 4."""
    monkeypatch.setattr(watch, "PROGRESS_INTERVAL", 0.05)
    with FakeEtcd() as etcd:
        for number in range(3):
            etcd.put(b"p/key", b"%d" % number)
        yield etcd


@asynccontextmanager
async def watched(etcd: FakeEtcd, since: int) -> AsyncIterator[AsyncGenerator[EtcdWatchEvent, None]]:
    connection = EtcdClient(EtcdAddress.parse(etcd.url), Random())
    try:
        async with (
            asyncio.timeout(20.0),
            aclosing(watch.watch(connection, b"p/", since, SystemClock(), Random())) as events,
        ):
            yield events
    finally:
        await connection.close()


async def test_an_idle_watch_from_the_next_revision_reports_progress_and_repeats_nothing(etcd: FakeEtcd) -> None:
    async with watched(etcd, 5) as events:
        first = await anext(events)
        assert isinstance(first, WatchProgress)
        assert first.header.revision == 4
        etcd.put(b"p/key", b"new")
        async for event in events:
            if not isinstance(event, WatchProgress):
                break
        assert isinstance(event, RevisionEvents)
        assert [change.key_value.value for change in event.events if change.key_value is not None] == [b"new"]


async def test_a_watch_from_an_earlier_revision_yields_all_later_events_and_no_earlier_ones(etcd: FakeEtcd) -> None:
    async with watched(etcd, 3) as events:
        seen = [await anext(events), await anext(events)]
        assert [event.revision for event in seen if isinstance(event, RevisionEvents)] == [3, 4]


async def test_a_broken_connection_is_replaced_and_reports_progress(etcd: FakeEtcd) -> None:
    async with watched(etcd, 5) as events:
        assert isinstance(await anext(events), WatchProgress)
        etcd.kill()
        etcd.start()
        kinds = [type(event) async for event in _until(events, 3)]
        assert WatchInterrupted in kinds
        assert kinds[-1] is WatchProgress


async def _until(events: AsyncGenerator[EtcdWatchEvent, None], fresh: int) -> AsyncIterator[EtcdWatchEvent]:
    """Yields the events until so many progress reports after an interruption."""
    broken = False
    async for event in events:
        yield event
        broken = broken or isinstance(event, WatchInterrupted)
        fresh -= broken and isinstance(event, WatchProgress)
        if not fresh:
            return


@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_an_etcd_with_a_lower_revision_is_reported_at_once(etcd: FakeEtcd, writes: int) -> None:
    etcd.wipe()
    for _ in range(writes):
        etcd.put(b"p/key", b"")
    async with watched(etcd, 5) as events:
        event = await anext(events)
        assert isinstance(event, ResyncRequired)
        assert "wiped or restored" in event.reason


async def test_a_lagging_member_reports_no_progress_and_is_not_taken_for_a_wiped_etcd(etcd: FakeEtcd) -> None:
    etcd.lag = 1
    etcd.put(b"q", b"")
    async with watched(etcd, 6) as events:
        behind = await anext(events)
        assert isinstance(behind, WatchInterrupted)
        assert "revision 4, behind 5" in behind.reason
        etcd.lag = 0
        assert isinstance(await anext(events), WatchProgress)


@pytest.fixture
def hung(etcd: FakeEtcd) -> Iterator[FakeEtcd]:
    """Another member of the same cluster, which does not answer."""
    with FakeEtcd() as member:
        member.state = etcd.state
        member.pause()
        yield member


@asynccontextmanager
async def client_of_first(first: FakeEtcd, second: FakeEtcd) -> AsyncIterator[EtcdClient]:
    """A client that uses the first member first."""
    connection = EtcdClient(EtcdAddress.parse(f"etcd://{first.host_port},{second.host_port}"), Random())
    if connection.host != first.host_port:
        connection.demote(connection.host)
    try:
        yield connection
    finally:
        await connection.close()


MARGIN = 2.5
"""Seconds beyond the timeout of the hanging member that a call may take, since the machine may be busy."""


async def test_a_hanging_member_delays_one_read_by_about_a_second(hung: FakeEtcd, etcd: FakeEtcd) -> None:
    async with client_of_first(hung, etcd) as connection:
        async with asyncio.timeout(client.FIRST_MEMBER_TIMEOUT + MARGIN):
            assert await connection.get(b"p/key") is not None
        assert connection.host == etcd.host_port, "the hanging member is used last"


async def test_a_hanging_member_delays_a_watch_by_about_a_second(hung: FakeEtcd, etcd: FakeEtcd) -> None:
    async with client_of_first(hung, etcd) as connection, aclosing(_watch_events(connection)) as events:
        async with asyncio.timeout(watch.SHORT_SILENCE_TIMEOUT + MARGIN):
            assert isinstance(await anext(events), WatchInterrupted)
            assert isinstance(await anext(events), WatchProgress)


async def test_a_lease_is_renewed_while_a_member_hangs(hung: FakeEtcd, etcd: FakeEtcd) -> None:
    async with client_of_first(etcd, hung) as connection:
        lease = await connection.grant(5)
        connection.demote(etcd.host_port)
        assert connection.host == hung.host_port
        async with asyncio.timeout(client.WRITE_MEMBER_TIMEOUT + MARGIN):
            with pytest.raises(EtcdUnreachable):
                await connection.keep_alive(lease)
            await connection.keep_alive(lease)


async def test_slow_members_get_more_time(hung: FakeEtcd, etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_MEMBER_TIMEOUT", 0.01)
    for member in (hung, etcd):
        member.resume()
        member.delay = 0.15
    async with client_of_first(hung, etcd) as connection:
        assert await connection.get(b"p/key") is not None


def _watch_events(connection: EtcdClient) -> AsyncGenerator[EtcdWatchEvent, None]:
    return watch.watch(connection, b"p/", 5, SystemClock(), Random())
