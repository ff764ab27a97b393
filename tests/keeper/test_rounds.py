from __future__ import annotations

import asyncio
import logging
from random import Random

import pytest

from adsum.keeper.rounds import MAX_ERROR_DELAY, run_rounds
from tests.keeper.world import KeeperWorld
from tests.support.fakes import FakeClock


async def test_a_loop_outlives_the_errors_of_its_rounds_and_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    clock, rounds = FakeClock(), 0

    async def round() -> None:
        nonlocal rounds
        rounds += 1
        if rounds <= 20:
            raise RuntimeError("not today")
        await clock.sleep(1.0)

    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(run_rounds(round, "testing", clock, Random(1)))
        await clock.advance(20 * MAX_ERROR_DELAY)
    assert rounds > 21
    assert len([record for record in caplog.records if record.exc_info]) == 20
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_instance_that_can_not_be_followed_does_not_affect_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with KeeperWorld() as world:
        grant = world.keeper.leases.grant

        def failing(key: object, *args: object, **named: object) -> None:
            if key == ("orders", "bad"):
                raise RuntimeError("not this one")
            grant(key, *args, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(world.keeper.leases, "grant", failing)
        for id in ("a", "bad", "c"):
            await world.register(id)
        await world.clock.advance(1.0)
        assert len(world.keeper.leases) == 2
        assert "a change of orders/bad can't be followed" in caplog.text


async def test_stopping_twice_is_harmless() -> None:
    async with KeeperWorld() as world:
        await world.keeper.stop()
        await world.keeper.stop()
