from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from random import Random

import pytest

from adsum.client.sources.source import ConnectionLost, ViewPosition
from adsum.client.views.cache_writer import FIRST_WRITE_DELAY, REWRITE_INTERVAL, WRITE_DELAY
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import View
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.client.views.view_state import SETTLING_TIME
from adsum.core.errors import Invalid
from tests.client.fakes import ScriptedSource, delta_update, endpoint, full_update
from tests.support.fakes import FakeClock, run_until_idle


class ResolverFixture:
    """A resolver of "orders" over a scripted source."""

    def __init__(self, shelf: ViewCache | None = None, **options: float) -> None:
        self.clock = FakeClock()
        self.source = ScriptedSource()
        self.resolver = Resolver("orders", self.source, cache=shelf, clock=self.clock, rng=Random(1), **options)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.resolver.view.endpoints]

    async def hear(self, *events: object) -> None:
        self.source.emit(*events)  # type: ignore[arg-type]
        await run_until_idle()


@pytest.fixture
async def following() -> AsyncIterator[ResolverFixture]:
    it = ResolverFixture()
    it.resolver.start()
    await run_until_idle()
    yield it
    await it.resolver.close()
    assert it.source.open_watches == 0


async def test_a_new_resolver_has_no_view(following: ResolverFixture) -> None:
    view = following.resolver.view
    assert (view.origin, view.endpoints, view.age()) == ("none", (), inf)
    assert not following.resolver.connected


async def test_a_view_states_its_epoch_revision_and_age(following: ResolverFixture) -> None:
    await following.hear(full_update(5, endpoint("a"), age=2.0))
    view = following.resolver.view
    assert (view.origin, view.epoch, view.revision, view.age()) == ("live", "e1", 5, 2.0)
    await following.clock.advance(3.0)
    assert view.age() == 5.0


async def test_a_heartbeat_makes_the_view_fresh_again(following: ResolverFixture) -> None:
    await following.hear(full_update(5, endpoint("a")))
    await following.clock.advance(14.0)
    await following.hear(delta_update(5, 8, age=0.5))
    assert (following.resolver.view.revision, following.resolver.view.age()) == (8, 0.5)


async def test_the_last_view_stays_and_ages_while_the_registry_is_lost(following: ResolverFixture) -> None:
    await following.hear(full_update(5, endpoint("a")), ConnectionLost("it is down"))
    await following.clock.advance(3600.0)
    assert following.ids == ["a"]
    assert following.resolver.view.age() == 3600.0
    assert not following.resolver.connected
    assert "down" in following.resolver.problem


async def test_a_lagging_node_does_not_refresh_the_view(following: ResolverFixture) -> None:
    await following.hear(full_update(5, endpoint("a")))
    await following.clock.advance(10.0)
    await following.hear(full_update(3))
    assert following.ids == ["a"]
    assert following.resolver.view.age() == 10.0
    assert "behind" in following.resolver.problem


async def test_an_update_is_acknowledged_only_after_listeners_have_seen_it(following: ResolverFixture) -> None:
    seen: list[tuple[int, int]] = []
    following.resolver.subscribe(lambda view: seen.append((view.revision, len(following.source.applied))))
    await following.hear(full_update(5, endpoint("a")))
    assert seen == [(0, 0), (5, 0)]
    assert following.source.applied == [("e1", 5)]


async def test_an_unexpected_error_does_not_freeze_the_view(
    following: ResolverFixture, caplog: pytest.LogCaptureFixture
) -> None:
    await following.hear(full_update(5, endpoint("a")), ValueError("surprise"))
    assert not following.resolver.connected
    await following.clock.advance(60.0)
    await following.hear(delta_update(5, 6, endpoint("b")))
    assert following.ids == ["a", "b"]
    assert following.source.positions == [None, ("e1", 5)]
    assert "surprise" in caplog.text


async def test_a_revision_gap_leads_to_a_full_update(following: ResolverFixture) -> None:
    await following.hear(full_update(5, endpoint("a")), delta_update(9, 10, endpoint("c")))
    assert following.ids == ["a"]
    await following.clock.advance(60.0)
    assert following.source.positions == [None, None]


async def test_a_listener_that_fails_does_not_stop_the_others(
    following: ResolverFixture, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[View] = []

    def failing(view: View) -> None:
        if view.endpoints:
            raise ValueError("follower")

    following.resolver.subscribe(failing)
    following.resolver.subscribe(seen.append)
    await following.hear(full_update(5, endpoint("a")))
    assert seen[-1].revision == 5
    assert following.resolver.connected


async def test_a_listener_that_unsubscribed_is_not_called(following: ResolverFixture) -> None:
    seen: list[View] = []
    stop = following.resolver.subscribe(seen.append)
    stop()
    stop()
    await following.hear(full_update(5, endpoint("a")))
    assert len(seen) == 1


async def test_a_registry_that_restarts_empty_removes_no_endpoint_until_it_has_settled(
    following: ResolverFixture,
) -> None:
    await following.hear(full_update(5, endpoint("a"), endpoint("b")))
    await following.hear(full_update(0, epoch="e2"))
    assert following.ids == ["a", "b"]
    await following.hear(delta_update(0, 1, endpoint("a"), epoch="e2"))
    await following.clock.advance(SETTLING_TIME - 1.0)
    assert following.ids == ["a", "b"]
    await following.clock.advance(2.0)
    assert following.ids == ["a"]
    assert (following.resolver.view.epoch, following.resolver.view.revision) == ("e2", 1)


async def test_changes_with_slow_listeners_are_rate_limited(following: ResolverFixture) -> None:
    seen: list[int] = []

    def slow(view: View) -> None:
        following.clock.jump(0.05)
        seen.append(view.revision)

    following.resolver.subscribe(slow)
    await following.hear(full_update(1, endpoint("a")), delta_update(1, 2, endpoint("b")))
    assert seen == [0, 1]
    await following.clock.advance(0.44)
    assert seen == [0, 1]
    await following.clock.advance(0.02)
    assert seen == [0, 1, 2]


async def test_a_watcher_receives_each_view_and_a_slow_one_only_the_latest(following: ResolverFixture) -> None:
    views = following.resolver.watch()
    await following.hear(full_update(1, endpoint("a")))
    assert (await anext(views)).revision == 1
    await following.hear(delta_update(1, 2, endpoint("b")), delta_update(2, 3, endpoint("c")), delta_update(3, 9))
    view = await anext(views)
    assert (view.revision, len(view.endpoints)) == (9, 3)
    waiting = asyncio.ensure_future(anext(views))
    await following.hear(delta_update(9, 10))
    assert not waiting.done(), "a heartbeat is no new view"
    await following.hear(delta_update(10, 11, removed=["a"]))
    assert [each.id for each in (await waiting).endpoints] == ["b", "c"]
    await views.aclose()


async def test_watchers_end_when_the_resolver_is_closed(following: ResolverFixture) -> None:
    await following.hear(full_update(1, endpoint("a")))
    seen: list[View] = []

    async def read() -> None:
        async for view in following.resolver.watch():
            seen.append(view)  # noqa: PERF401

    task = asyncio.create_task(read())
    await run_until_idle()
    await following.resolver.close()
    await task
    assert len(seen) == 1
    assert following.ids == ["a"]


def test_an_invalid_service_name_is_refused() -> None:
    with pytest.raises(Invalid):
        Resolver("No Such Name", ScriptedSource(), cache=None, clock=FakeClock(), rng=Random(1))


KEPT = CachedView(ViewPosition("e1", 4), (endpoint("kept"),), 1_700_000_000.0 - 90.0)


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[ResolverFixture]:
    """A resolver that has a kept view and has just begun to ask."""
    shelf = ViewCache(tmp_path, ["http://a:1"])
    shelf.save("orders", KEPT)
    it = ResolverFixture(shelf)
    it.resolver.start()
    await run_until_idle()
    yield it
    await it.resolver.close()


async def test_a_cached_view_is_not_used_while_the_registry_may_still_answer(keeping: ResolverFixture) -> None:
    await keeping.clock.advance(keeping.source.cache_fallback_delay - 0.1)
    assert (keeping.ids, keeping.resolver.view.origin) == ([], "none")
    await keeping.hear(full_update(9, endpoint("new")))
    await keeping.clock.advance(10.0)
    assert (keeping.ids, keeping.resolver.view.origin) == (["new"], "live")


async def test_a_watch_resumes_from_the_cached_view(keeping: ResolverFixture) -> None:
    assert keeping.source.positions == [("e1", 4)]
    await keeping.hear(delta_update(4, 5))
    assert (keeping.ids, keeping.resolver.view.origin, keeping.resolver.view.age()) == (["kept"], "live", 0.0)


async def test_an_update_that_empties_the_service_replaces_the_cached_view(keeping: ResolverFixture) -> None:
    await keeping.hear(delta_update(4, 6, removed=["kept"]))
    assert (keeping.ids, keeping.resolver.view.origin) == ([], "live")


async def test_a_view_of_another_epoch_replaces_an_old_cached_view(
    keeping: ResolverFixture,
) -> None:
    await keeping.hear(full_update(2, endpoint("new"), epoch="e2"))
    assert (keeping.ids, keeping.resolver.view.origin) == (["new"], "live")


async def test_a_late_view_of_another_epoch_replaces_an_old_cached_view(keeping: ResolverFixture) -> None:
    await keeping.clock.advance(keeping.source.cache_fallback_delay + 0.1)
    assert (keeping.ids, keeping.resolver.view.origin) == (["kept"], "disk")
    await keeping.hear(full_update(2, epoch="e2"))
    assert (keeping.ids, keeping.resolver.view.origin) == ([], "live")


async def test_a_registry_that_was_lost_and_comes_back_empty_removes_no_endpoint_at_once(
    keeping: ResolverFixture,
) -> None:
    await keeping.hear(ConnectionLost("connection refused"), full_update(2, epoch="e2"))
    assert keeping.ids == ["kept"]
    await keeping.clock.advance(SETTLING_TIME + 1.0)
    assert keeping.ids == []


async def test_a_view_cached_just_before_the_registry_came_back_empty_settles(tmp_path: Path) -> None:
    shelf = ViewCache(tmp_path, ["http://a:1"])
    shelf.save("orders", CachedView(ViewPosition("e1", 4), (endpoint("kept"),), FakeClock().wall() - 5.0))
    it = ResolverFixture(shelf)
    it.resolver.start()
    await it.hear(full_update(1, epoch="e2"))
    assert it.ids == ["kept"]
    await it.clock.advance(SETTLING_TIME + 1.0)
    assert it.ids == []
    await it.resolver.close()


async def test_a_cached_view_is_used_at_once_when_no_node_can_be_reached(
    keeping: ResolverFixture, caplog: pytest.LogCaptureFixture
) -> None:
    await keeping.hear(ConnectionLost("http://a:1: connection refused"))
    assert (keeping.ids, keeping.resolver.view.origin, keeping.resolver.view.revision) == (["kept"], "disk", 4)
    assert keeping.resolver.view.age() == pytest.approx(90.0)
    assert "using the view that was cached on this host 90 s ago" in caplog.text
    assert "connection refused" in caplog.text
    await keeping.hear(full_update(9, endpoint("new")))
    assert (keeping.ids, keeping.resolver.view.origin) == (["new"], "live")


async def test_a_cached_view_is_used_when_the_registry_is_silent(keeping: ResolverFixture) -> None:
    await keeping.clock.advance(keeping.source.cache_fallback_delay + 0.1)
    assert (keeping.ids, keeping.resolver.view.origin) == (["kept"], "disk")
    assert keeping.resolver.problem == "no answer within 1 s"


async def test_a_program_that_was_suspended_still_waits_for_the_registry(keeping: ResolverFixture) -> None:
    keeping.clock.jump(30.0)
    await run_until_idle()
    assert keeping.resolver.view.origin == "none"
    await keeping.hear(full_update(9, endpoint("new")))
    assert keeping.ids == ["new"]


async def test_a_cached_view_is_used_rather_than_an_older_view_of_a_lagging_node(keeping: ResolverFixture) -> None:
    await keeping.hear(full_update(3, endpoint("older")))
    assert (keeping.ids, keeping.resolver.view.origin) == (["kept"], "disk")
    assert "behind" in keeping.resolver.problem


async def test_a_cached_view_older_than_cache_max_age_is_used_with_a_warning(tmp_path: Path) -> None:
    shelf = ViewCache(tmp_path, ["http://a:1"])
    shelf.save("orders", KEPT)
    for bound, caveat in ((80.0, "is older than cache_max_age (80 s)"), (100.0, "")):
        it = ResolverFixture(shelf, cache_max_age=bound)
        assert it.resolver.view_warning == ""
        it.resolver.start()
        await it.hear(ConnectionLost("it is down"))
        assert it.ids == ["kept"]
        assert caveat in it.resolver.view_warning
        assert bool(it.resolver.view_warning) is bool(caveat)
        await it.resolver.close()


async def test_closing_a_resolver_sends_one_goodbye_for_its_service(following: ResolverFixture) -> None:
    await following.resolver.close()
    await following.resolver.close()
    assert following.source.goodbyes == [["orders"]]


class CountingViewCache(ViewCache):
    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), ["http://a:1"])
        self.saved: list[CachedView] = []

    def load(self, service: str) -> CachedView | None:
        return None

    def save(self, service: str, shelved: CachedView) -> None:
        self.saved.append(shelved)


async def at_least(shelf: CountingViewCache, count: int) -> None:
    """Writes happen on a thread: give it real time."""
    async with asyncio.timeout(10.0):
        while len(shelf.saved) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_changes_are_written_together_and_heartbeats_now_and_then() -> None:
    shelf = CountingViewCache()
    it = ResolverFixture(shelf)
    it.resolver.start()
    await it.hear(full_update(1, endpoint("a")))
    await it.clock.advance(FIRST_WRITE_DELAY)
    await at_least(shelf, 1)
    assert [kept.position.revision for kept in shelf.saved] == [1], "soon: the program may live for a second only"
    await it.hear(delta_update(1, 2, endpoint("b")), delta_update(2, 3, endpoint("c")))
    await it.clock.advance(WRITE_DELAY - 0.1)
    assert len(shelf.saved) == 1
    await it.clock.advance(0.2)
    await at_least(shelf, 2)
    assert [kept.position.revision for kept in shelf.saved] == [1, 3]
    await it.hear(delta_update(3, 4))
    await it.clock.advance(REWRITE_INTERVAL / 2)
    assert len(shelf.saved) == 2
    await it.clock.advance(REWRITE_INTERVAL)
    await at_least(shelf, 3)
    assert shelf.saved[-1].position.revision == 4
    await it.hear(delta_update(4, 5, removed=["a"]))
    await it.resolver.close()
    assert shelf.saved[-1].position.revision == 5, "the last view is written at the end"


async def test_a_settling_view_is_not_cached() -> None:
    shelf = CountingViewCache()
    it = ResolverFixture(shelf)
    it.resolver.start()
    await it.hear(full_update(1, endpoint("a")))
    await it.clock.advance(2.0)
    await at_least(shelf, 1)
    await it.hear(full_update(1, epoch="e2"))
    await it.clock.advance(SETTLING_TIME - 1.0)
    assert [kept.position.epoch for kept in shelf.saved] == ["e1"]
    await it.resolver.close()
    assert [kept.position.epoch for kept in shelf.saved] == ["e1"]
