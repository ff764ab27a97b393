from __future__ import annotations

import asyncio
import logging
from random import Random

import pytest

from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Change
from adsum.core.catalog.draft import CatalogView
from adsum.core.errors import UnknownInstance
from adsum.core.model import Instance, Key, Registration
from adsum.keeper.proposals import Proposals
from tests.keeper.world import CALLER, KeeperWorld


def listing(id: str) -> decisions.Decision:
    return decisions.register(Registration(Instance("orders", id, "127.0.0.1", 80)), CALLER)


def _log_levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The levels of the keeper's log records."""
    return [record.levelname for record in caplog.records if record.name == "adsum.keeper"]


async def test_of_one_subject_only_the_newest_proposal_is_written() -> None:
    async with KeeperWorld() as world:
        proposals = Proposals(world.registry, world.clock, Random(1))
        proposals.add("subject", listing("old"))
        proposals.add("subject", listing("new"))
        proposals.add("other", listing("other"))
        await proposals.round()
        assert set(world.registry.snapshot.service("orders").listings) == {"new", "other"}
        assert len(proposals) == 0


async def test_a_newer_proposal_replaces_one_that_is_refused_meanwhile() -> None:
    async with KeeperWorld() as world:
        proposals = Proposals(world.registry, world.clock, Random(1))
        refusals: list[str] = []

        def replaced(view: CatalogView) -> list[Change]:
            if not refusals:
                proposals.add("subject", listing("new"), lambda: refusals.append("new"))
            return listing("old")(view)

        world.store.is_unavailable = True
        proposals.add("subject", replaced, lambda: refusals.append("old"))
        round = asyncio.create_task(proposals.round())
        await world.clock.advance(0.0)
        assert refusals == ["old"]
        world.store.is_unavailable = False
        await world.clock.advance(5.0)
        await round
        await proposals.round()
        assert set(world.registry.snapshot.service("orders").listings) == {"new"}


async def test_a_proposal_during_the_back_off_is_refused_at_once_and_written_later() -> None:
    async with KeeperWorld() as world:
        proposals = Proposals(world.registry, world.clock, Random(1))
        refusals: list[str] = []
        world.store.is_unavailable = True
        proposals.add("first", listing("first"), lambda: refusals.append("first"))
        round = asyncio.create_task(proposals.round())
        await world.clock.advance(0.0)
        proposals.add("second", listing("second"), lambda: refusals.append("second"))
        assert refusals == ["first", "second"]
        world.store.is_unavailable = False
        await world.clock.advance(5.0)
        await round
        proposals.add("third", listing("third"), lambda: refusals.append("third"))
        await proposals.round()
        assert refusals == ["first", "second"]
        assert set(world.registry.snapshot.service("orders").listings) == {"first", "second", "third"}


async def test_a_proposal_that_a_rule_refuses_is_dropped() -> None:
    async with KeeperWorld() as world:
        proposals = Proposals(world.registry, world.clock, Random(1))

        def refused(view: CatalogView) -> list[Change]:
            raise UnknownInstance("orders", "a")

        proposals.add(Key("orders", "a"), refused)
        proposals.add("other", listing("b"))
        await proposals.round()
        assert len(proposals) == 0
        assert world.find(Key("orders", "b")) is not None


async def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=5.0)
        world.store.is_unavailable = True
        with caplog.at_level(logging.INFO, "adsum.keeper"):
            await world.clock.advance(120.0)
            assert _log_levels(caplog) == ["WARNING"]
            world.store.is_unavailable = False
            await world.clock.advance(20.0)
        assert _log_levels(caplog) == ["WARNING", "INFO"]
        assert world.causes(key)[1:2] == ["lease-lapsed"]


async def test_a_proposal_that_changes_nothing_does_not_end_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    async with KeeperWorld() as world:
        proposals = Proposals(world.registry, world.clock, Random(1))
        caplog.set_level(logging.INFO, "adsum.keeper")
        tries: list[int] = []

        def once(view: CatalogView) -> list[Change]:
            tries.append(1)
            return listing("a")(view) if len(tries) == 1 else []

        world.store.is_unavailable = True
        proposals.add("subject", once)
        for _ in range(2):
            round = asyncio.create_task(proposals.round())
            await world.clock.advance(20.0)
            await round
        assert _log_levels(caplog) == ["WARNING"]
        world.store.is_unavailable = False
        proposals.add("subject", listing("b"))
        await proposals.round()
        assert _log_levels(caplog) == ["WARNING", "INFO"]
