from __future__ import annotations

import logging

import pytest

from adsum.core.errors import ProbeUnavailable
from adsum.core.model import Check, CheckKind, Result, Status
from adsum.core.provenance import Cause
from adsum.keeper.checks import WARNING_INTERVAL
from tests.keeper.world import KeeperWorld

HTTP = Check("http", CheckKind.HTTP, interval=10.0, rise=2, fall=3)
TCP = Check("tcp", CheckKind.TCP, interval=10.0)
ROUND = 12.0
"""Longer than one interval with its jitter, shorter than two."""


async def test_a_new_instance_is_checked_soon_and_its_first_pass_makes_it_passing() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        assert world.status(key) is Status.STARTING
        await world.clock.advance(1.5)
        assert world.status(key) is Status.PASSING
        assert world.reason(key) == "http: pass on port 8000"
        assert world.causes(key) == [Cause.REGISTERED, Cause.CHECK_PASSING]


async def test_fall_fails_in_a_row_make_it_critical_and_rise_passes_make_it_passing() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        world.probe.results["a"] = Result.FAIL
        begun = len(world.probe.starts)
        while world.status(key) is Status.PASSING:
            await world.clock.advance(1.0)
        assert len(world.probe.starts) - begun == 3
        assert world.status(key) is Status.CRITICAL
        world.probe.results["a"] = Result.PASS
        begun = len(world.probe.starts)
        while world.status(key) is Status.CRITICAL:
            await world.clock.advance(1.0)
        assert len(world.probe.starts) - begun == 2
        assert world.causes(key)[1:] == [Cause.CHECK_PASSING, Cause.CHECK_CRITICAL, Cause.CHECK_PASSING]


async def test_outcomes_can_be_read_and_write_nothing() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP, TCP))
        assert world.keeper.last_outcomes(key) == {}
        await world.clock.advance(2.0)
        assert {name: outcome.result for name, outcome in world.keeper.last_outcomes(key).items()} == {
            "http": Result.PASS,
            "tcp": Result.PASS,
        }
        revision = world.store.revision
        world.probe.results["a"] = Result.FAIL
        await world.clock.advance(ROUND)
        assert world.keeper.last_outcomes(key)["http"].note == "fail on port 8000"
        assert world.store.revision == revision
        await world.deregister(key)
        await world.clock.advance(1.0)
        assert world.keeper.last_outcomes(key) == {}


async def test_a_removed_instance_is_not_checked_and_its_running_probe_is_cancelled() -> None:
    async with KeeperWorld() as world:
        world.probe.took = 5.0
        key = await world.register("a", ttl=None, checks=(HTTP, TCP))
        await world.clock.advance(2.0)
        assert world.probe.running == 2
        await world.deregister(key)
        await world.clock.advance(1.0)
        assert world.probe.running == 0
        assert world.keeper.check_count == 0
        begun = len(world.probe.starts)
        await world.clock.advance(60.0)
        assert len(world.probe.starts) == begun
        assert world.observer.probes == []


async def test_a_check_that_is_no_longer_registered_is_not_run() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP, TCP))
        await world.clock.advance(2.0)
        await world.register("a", ttl=None, checks=(TCP,))
        await world.clock.advance(2.0)
        assert world.keeper.check_count == 1
        assert set(world.keeper.last_outcomes(key)) == {"tcp"}


async def test_registering_the_same_again_does_not_reset_health() -> None:
    async with KeeperWorld() as world:
        world.probe.results["a"] = Result.FAIL
        key = await world.register("a", checks=(HTTP,))
        await world.clock.advance(4 * ROUND)
        assert world.status(key) is Status.CRITICAL
        await world.register("a", checks=(HTTP,))
        assert world.status(key) is Status.CRITICAL


async def test_a_moved_instance_is_checked_at_its_new_place() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        await world.register("a", ttl=None, checks=(HTTP,), port=9000)
        assert world.status(key) is Status.STARTING
        await world.clock.advance(2.0)
        assert world.status(key) is Status.PASSING
        assert world.reason(key) == "http: pass on port 9000"


async def test_the_outcome_of_the_old_place_does_not_apply_to_the_new_one() -> None:
    async with KeeperWorld() as world:
        world.probe.took = 1.5
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(1.2)
        assert world.probe.running == 1
        await world.register("a", ttl=None, checks=(HTTP,), port=9000)
        await world.clock.advance(3.0)
        assert world.status(key) is Status.PASSING
        assert world.reason(key) == "http: pass on port 9000"


async def test_an_instance_that_left_and_came_back_between_two_snapshots_starts_again() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        await world.deregister(key)
        await world.register("a", ttl=None, checks=(HTTP,))
        assert world.status(key) is Status.STARTING
        await world.clock.advance(2.0)
        assert world.status(key) is Status.PASSING


async def test_after_a_restart_checks_start_from_the_listed_status_and_nothing_flaps() -> None:
    async with KeeperWorld() as world:
        well = await world.register("well", ttl=None, checks=(HTTP,))
        ill = await world.register("ill", ttl=None, checks=(HTTP,))
        world.probe.results["ill"] = Result.FAIL
        await world.clock.advance(5 * ROUND)
        assert world.status(ill) is Status.CRITICAL
        revision = world.store.revision
    async with KeeperWorld(world.store, world.clock) as again:
        again.probe.results["ill"] = Result.FAIL
        again.probe.results["well"] = Result.FAIL
        await again.clock.advance(ROUND)
        assert again.store.revision == revision
        assert (again.status(well), again.status(ill)) == (Status.PASSING, Status.CRITICAL)
        assert set(again.keeper.last_outcomes(well)) == {"http"}


async def test_a_status_found_while_the_store_was_away_is_written_when_it_is_back() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        world.store.is_unavailable = True
        world.probe.results["a"] = Result.FAIL
        await world.clock.advance(5 * ROUND)
        assert world.status(key) is Status.PASSING
        world.store.is_unavailable = False
        await world.clock.advance(20.0)
        assert world.status(key) is Status.CRITICAL


async def test_a_status_that_changed_back_while_the_store_was_away_is_not_written() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        revision = world.store.revision
        world.store.is_unavailable = True
        world.probe.results["a"] = Result.FAIL
        await world.clock.advance(5 * ROUND)
        world.probe.results["a"] = Result.PASS
        await world.clock.advance(5 * ROUND)
        world.store.is_unavailable = False
        await world.clock.advance(20.0)
        assert world.status(key) is Status.PASSING
        assert world.store.revision == revision


async def test_a_new_status_is_kept_while_the_catalog_lags_behind() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        world.store.is_unavailable = True
        world.probe.results["a"] = Result.FAIL
        await world.clock.advance(5 * ROUND)
        world.store.is_unavailable = False
        await world.override(key, None)
        await world.clock.advance(0.2)
        assert world.keeper.last_outcomes(key)["http"].result is Result.FAIL


async def test_at_most_max_probes_run_at_once_and_the_lag_grows(caplog: pytest.LogCaptureFixture) -> None:
    async with KeeperWorld(max_probes=4) as world:
        world.probe.took = 4.0
        for n in range(40):
            await world.register(f"i{n}", ttl=None, checks=(HTTP,))
        with caplog.at_level(logging.WARNING):
            await world.clock.advance(WARNING_INTERVAL * 2.5)
        assert world.probe.max_running == 4
        worst = max(lag.seconds for lag in world.observer.lags)
        assert worst > 5.0
        assert max(lag.overdue for lag in world.observer.lags) > 10
        warnings = [record for record in caplog.records if "falling behind" in record.message]
        assert 2 <= len(warnings) <= 4
        world.probe.took = 0.0
        await world.clock.advance(60.0)
        assert world.observer.lags[-1].overdue == 0
        assert world.observer.lags[-1].seconds < 1.0


async def test_checks_that_keep_up_have_little_lag() -> None:
    async with KeeperWorld() as world:
        for n in range(100):
            await world.register(f"i{n}", ttl=None, checks=(HTTP,))
        await world.clock.advance(60.0)
        assert len(world.observer.lags) > 40
        assert max(lag.seconds for lag in world.observer.lags) <= 0.5


async def test_an_error_in_a_probe_changes_no_status(caplog: pytest.LogCaptureFixture) -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        probe, world.probe.probe = world.probe.probe, None  # type: ignore[assignment, method-assign]
        await world.clock.advance(5 * ROUND)
        assert world.status(key) is Status.PASSING
        assert "the probe of orders/a failed" in caplog.text
        world.probe.probe = probe  # type: ignore[method-assign]
        begun = len(world.probe.starts)
        await world.clock.advance(2 * ROUND)
        assert len(world.probe.starts) > begun


async def test_an_unavailable_probe_changes_no_status_and_is_logged_at_intervals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        world.probe.unavailable = ProbeUnavailable("too many open files")
        await world.clock.advance(WARNING_INTERVAL * 2.5)
        assert world.status(key) is Status.PASSING
        warnings = [record for record in caplog.records if "too many open files" in record.message]
        assert 2 <= len(warnings) <= 3
        world.probe.unavailable = None
        world.probe.results["a"] = Result.FAIL
        await world.clock.advance(5 * ROUND)
        assert world.status(key) is Status.CRITICAL
