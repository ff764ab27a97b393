"""Sessions that are lost or refused, and the reasons that they report."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest

from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdRefused, EtcdUnreachable, LeaseGone
from adsum.etcd.session import EtcdSession
from tests.support.fakes import FakeClock


class ScriptedEtcd:
    """Grants and renews leases, or raises the scripted errors."""

    host = "e1:2379"

    def __init__(self) -> None:
        self.granted = 0
        self.no_grant: EtcdError | None = None
        self.no_renewal: EtcdError | None = None

    async def grant(self, ttl: int) -> int:
        if self.no_grant is not None:
            raise self.no_grant
        self.granted += 1
        return self.granted

    async def keep_alive(self, lease: int) -> None:
        if self.no_renewal is not None:
            raise self.no_renewal

    async def revoke(self, lease: int) -> None:
        pass

    def demote(self, host: str) -> None:
        pass


async def _nothing(lease: int) -> None:
    pass


async def test_a_refused_session_is_logged_once_with_its_reason_and_when_it_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    etcd, clock = ScriptedEtcd(), FakeClock()
    session = EtcdSession(cast("EtcdClient", etcd), 6, _nothing, clock, Random(1))
    session.start()
    await clock.advance(1.0)
    assert (session.is_held, session.seconds_without_lease(), session.trouble) == (True, 0.0, "")
    etcd.no_grant, etcd.no_renewal = EtcdRefused("etcd refuses: authentication failed"), LeaseGone("gone")
    await clock.advance(20.0)
    assert (session.is_held, session.trouble) == (False, "etcd refuses: authentication failed")
    assert 18.0 <= session.seconds_without_lease() <= 20.0
    etcd.no_grant = etcd.no_renewal = None
    await clock.advance(3.0)
    assert (session.is_held, session.seconds_without_lease(), session.trouble) == (True, 0.0, "")
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "WARNING"]
    await session.close()
    assert not session.is_held


async def test_a_lost_renewal_is_no_trouble_while_the_lease_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    etcd, clock = ScriptedEtcd(), FakeClock()
    session = EtcdSession(cast("EtcdClient", etcd), 6, _nothing, clock, Random(1))
    session.start()
    await clock.advance(1.0)
    etcd.no_renewal = EtcdUnreachable("away")
    await clock.advance(4.5)
    assert (session.is_held, session.trouble, caplog.records) == (True, "", [])
    await clock.advance(4.5)
    assert (session.is_held, session.trouble) == (False, "away")
    etcd.no_renewal = None
    await clock.advance(3.0)
    assert (session.is_held, session.trouble, etcd.granted) == (True, "", 1)
    await session.close()


async def test_a_lost_session_has_a_reason_at_once() -> None:
    etcd, clock = ScriptedEtcd(), FakeClock()
    session = EtcdSession(cast("EtcdClient", etcd), 6, _nothing, clock, Random(1))
    session.start()
    await clock.advance(1.0)
    etcd.no_renewal = EtcdUnreachable("away")
    while not session.seconds_without_lease():
        assert session.trouble == ""
        await clock.advance(0.05)
    assert session.trouble == "away"
    await session.close()


async def test_a_lease_that_etcd_lost_is_replaced_as_soon_as_it_is_verified() -> None:
    etcd, clock = ScriptedEtcd(), FakeClock()

    async def granted(lease: int) -> None:
        etcd.no_renewal = None

    session = EtcdSession(cast("EtcdClient", etcd), 60, granted, clock, Random(1))
    session.start()
    await clock.advance(1.0)
    session.verify()
    await clock.advance(0.1)
    assert etcd.granted == 1, "the lease still exists"
    etcd.no_renewal = LeaseGone("gone")
    await clock.advance(0.1)
    assert etcd.granted == 1
    session.verify()
    await clock.advance(0.1)
    assert (etcd.granted, session.is_held) == (2, True)
    await session.close()
