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

    def __init__(self, cache: ViewCache | None = None, **options: float) -> None:
        self.clock = FakeClock()
        self.source = ScriptedSource()
        self.resolver = Resolver("orders", self.source, cache=cache, clock=self.clock, rng=Random(1), **options)

    @property
    def ids(self) -> list[str]:
        return [endpoint.id for endpoint in self.resolver.view.endpoints]

    async def receive(self, *events: object) -> None:
        self.source.emit(*events)  # type: ignore[arg-type]
        await run_until_idle()


@pytest.fixture
async def fixture() -> AsyncIterator[ResolverFixture]:
    fixture = ResolverFixture()
    fixture.resolver.start()
    await run_until_idle()
    yield fixture
    await fixture.resolver.close()
    assert fixture.source.open_watches == 0


async def test_a_new_resolver_has_no_view(fixture: ResolverFixture) -> None:
    view = fixture.resolver.view
    assert (view.origin, view.endpoints, view.age()) == ("none", (), inf)
    assert not fixture.resolver.connected


async def test_a_view_states_its_epoch_revision_and_age(fixture: ResolverFixture) -> None:
    await fixture.receive(full_update(5, endpoint("a"), age=2.0))
    view = fixture.resolver.view
    assert (view.origin, view.epoch, view.revision, view.age()) == ("live", "e1", 5, 2.0)
    await fixture.clock.advance(3.0)
    assert view.age() == 5.0


async def test_a_heartbeat_makes_the_view_fresh_again(fixture: ResolverFixture) -> None:
    await fixture.receive(full_update(5, endpoint("a")))
    await fixture.clock.advance(14.0)
    await fixture.receive(delta_update(5, 8, age=0.5))
    assert (fixture.resolver.view.revision, fixture.resolver.view.age()) == (8, 0.5)


async def test_the_last_view_stays_and_ages_while_the_registry_is_lost(fixture: ResolverFixture) -> None:
    await fixture.receive(full_update(5, endpoint("a")), ConnectionLost("it is down"))
    await fixture.clock.advance(3600.0)
    assert fixture.ids == ["a"]
    assert fixture.resolver.view.age() == 3600.0
    assert not fixture.resolver.connected
    assert "down" in fixture.resolver.problem


async def test_a_lagging_node_does_not_refresh_the_view(fixture: ResolverFixture) -> None:
    await fixture.receive(full_update(5, endpoint("a")))
    await fixture.clock.advance(10.0)
    await fixture.receive(full_update(3))
    assert fixture.ids == ["a"]
    assert fixture.resolver.view.age() == 10.0
    assert "behind" in fixture.resolver.problem


async def test_an_update_is_acknowledged_only_after_listeners_have_seen_it(fixture: ResolverFixture) -> None:
    seen: list[tuple[int, int]] = []
    fixture.resolver.subscribe(lambda view: seen.append((view.revision, len(fixture.source.acknowledged))))
    await fixture.receive(full_update(5, endpoint("a")))
    assert seen == [(0, 0), (5, 0)]
    assert fixture.source.acknowledged == [("e1", 5)]


async def test_an_unexpected_error_does_not_freeze_the_view(
    fixture: ResolverFixture, caplog: pytest.LogCaptureFixture
) -> None:
    await fixture.receive(full_update(5, endpoint("a")), ValueError("surprise"))
    assert not fixture.resolver.connected
    await fixture.clock.advance(60.0)
    await fixture.receive(delta_update(5, 6, endpoint("b")))
    assert fixture.ids == ["a", "b"]
    assert fixture.source.positions == [None, ("e1", 5)]
    assert "surprise" in caplog.text


async def test_a_revision_gap_leads_to_a_full_update(fixture: ResolverFixture) -> None:
    await fixture.receive(full_update(5, endpoint("a")), delta_update(9, 10, endpoint("c")))
    assert fixture.ids == ["a"]
    await fixture.clock.advance(60.0)
    assert fixture.source.positions == [None, None]


async def test_a_listener_that_fails_does_not_stop_the_others(
    fixture: ResolverFixture, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[View] = []

    def failing(view: View) -> None:
        if view.endpoints:
            raise ValueError("listener")

    fixture.resolver.subscribe(failing)
    fixture.resolver.subscribe(seen.append)
    await fixture.receive(full_update(5, endpoint("a")))
    assert seen[-1].revision == 5
    assert fixture.resolver.connected


async def test_a_listener_that_unsubscribed_is_not_called(fixture: ResolverFixture) -> None:
    seen: list[View] = []
    stop = fixture.resolver.subscribe(seen.append)
    stop()
    stop()
    await fixture.receive(full_update(5, endpoint("a")))
    assert len(seen) == 1


async def test_a_registry_that_restarts_empty_removes_no_endpoint_until_it_has_settled(
    fixture: ResolverFixture,
) -> None:
    await fixture.receive(full_update(5, endpoint("a"), endpoint("b")))
    await fixture.receive(full_update(0, epoch="e2"))
    assert fixture.ids == ["a", "b"]
    await fixture.receive(delta_update(0, 1, endpoint("a"), epoch="e2"))
    await fixture.clock.advance(SETTLING_TIME - 1.0)
    assert fixture.ids == ["a", "b"]
    await fixture.clock.advance(2.0)
    assert fixture.ids == ["a"]
    assert (fixture.resolver.view.epoch, fixture.resolver.view.revision) == ("e2", 1)


async def test_changes_with_slow_listeners_are_rate_limited(fixture: ResolverFixture) -> None:
    seen: list[int] = []

    def slow(view: View) -> None:
        fixture.clock.jump(0.05)
        seen.append(view.revision)

    fixture.resolver.subscribe(slow)
    await fixture.receive(full_update(1, endpoint("a")), delta_update(1, 2, endpoint("b")))
    assert seen == [0, 1]
    await fixture.clock.advance(0.44)
    assert seen == [0, 1]
    await fixture.clock.advance(0.02)
    assert seen == [0, 1, 2]


async def test_a_watcher_receives_each_view_and_a_slow_one_only_the_latest(fixture: ResolverFixture) -> None:
    views = fixture.resolver.watch()
    await fixture.receive(full_update(1, endpoint("a")))
    assert (await anext(views)).revision == 1
    await fixture.receive(delta_update(1, 2, endpoint("b")), delta_update(2, 3, endpoint("c")), delta_update(3, 9))
    view = await anext(views)
    assert (view.revision, len(view.endpoints)) == (9, 3)
    waiting = asyncio.ensure_future(anext(views))
    await fixture.receive(delta_update(9, 10))
    assert not waiting.done(), "a heartbeat is not a new view"
    await fixture.receive(delta_update(10, 11, removed=["a"]))
    assert [endpoint.id for endpoint in (await waiting).endpoints] == ["b", "c"]
    await views.aclose()


async def test_watchers_end_when_the_resolver_is_closed(fixture: ResolverFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a")))
    seen: list[View] = []

    async def read() -> None:
        async for view in fixture.resolver.watch():
            seen.append(view)  # noqa: PERF401

    task = asyncio.create_task(read())
    await run_until_idle()
    await fixture.resolver.close()
    await task
    assert len(seen) == 1
    assert fixture.ids == ["a"]


def test_an_invalid_service_name_is_refused() -> None:
    with pytest.raises(Invalid):
        Resolver("No Such Name", ScriptedSource(), cache=None, clock=FakeClock(), rng=Random(1))


CACHED = CachedView(ViewPosition("e1", 4), (endpoint("kept"),), 1_700_000_000.0 - 90.0)


@pytest.fixture
async def cached(tmp_path: Path) -> AsyncIterator[ResolverFixture]:
    """A resolver with a cached view that has just sent its first request."""
    cache = ViewCache(tmp_path, ["http://a:1"])
    cache.save("orders", CACHED)
    fixture = ResolverFixture(cache)
    fixture.resolver.start()
    await run_until_idle()
    yield fixture
    await fixture.resolver.close()


async def test_a_cached_view_is_not_used_while_the_registry_may_still_answer(cached: ResolverFixture) -> None:
    await cached.clock.advance(cached.source.cache_fallback_delay - 0.1)
    assert (cached.ids, cached.resolver.view.origin) == ([], "none")
    await cached.receive(full_update(9, endpoint("new")))
    await cached.clock.advance(10.0)
    assert (cached.ids, cached.resolver.view.origin) == (["new"], "live")


async def test_a_watch_resumes_from_the_cached_view(cached: ResolverFixture) -> None:
    assert cached.source.positions == [("e1", 4)]
    await cached.receive(delta_update(4, 5))
    assert (cached.ids, cached.resolver.view.origin, cached.resolver.view.age()) == (["kept"], "live", 0.0)


async def test_an_update_that_empties_the_service_replaces_the_cached_view(cached: ResolverFixture) -> None:
    await cached.receive(delta_update(4, 6, removed=["kept"]))
    assert (cached.ids, cached.resolver.view.origin) == ([], "live")


async def test_a_view_of_another_epoch_replaces_an_old_cached_view(
    cached: ResolverFixture,
) -> None:
    await cached.receive(full_update(2, endpoint("new"), epoch="e2"))
    assert (cached.ids, cached.resolver.view.origin) == (["new"], "live")


async def test_a_late_view_of_another_epoch_replaces_an_old_cached_view(cached: ResolverFixture) -> None:
    await cached.clock.advance(cached.source.cache_fallback_delay + 0.1)
    assert (cached.ids, cached.resolver.view.origin) == (["kept"], "disk")
    await cached.receive(full_update(2, epoch="e2"))
    assert (cached.ids, cached.resolver.view.origin) == ([], "live")


async def test_a_registry_that_was_lost_and_comes_back_empty_removes_no_endpoint_at_once(
    cached: ResolverFixture,
) -> None:
    await cached.receive(ConnectionLost("connection refused"), full_update(2, epoch="e2"))
    assert cached.ids == ["kept"]
    await cached.clock.advance(SETTLING_TIME + 1.0)
    assert cached.ids == []


async def test_a_view_cached_just_before_the_registry_came_back_empty_settles(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path, ["http://a:1"])
    cache.save("orders", CachedView(ViewPosition("e1", 4), (endpoint("kept"),), FakeClock().wall() - 5.0))
    fixture = ResolverFixture(cache)
    fixture.resolver.start()
    await fixture.receive(full_update(1, epoch="e2"))
    assert fixture.ids == ["kept"]
    await fixture.clock.advance(SETTLING_TIME + 1.0)
    assert fixture.ids == []
    await fixture.resolver.close()


async def test_a_cached_view_is_used_at_once_when_no_node_can_be_reached(
    cached: ResolverFixture, caplog: pytest.LogCaptureFixture
) -> None:
    await cached.receive(ConnectionLost("http://a:1: connection refused"))
    assert (cached.ids, cached.resolver.view.origin, cached.resolver.view.revision) == (["kept"], "disk", 4)
    assert cached.resolver.view.age() == pytest.approx(90.0)
    assert "using the view that was cached on this host 90 s ago" in caplog.text
    assert "connection refused" in caplog.text
    await cached.receive(full_update(9, endpoint("new")))
    assert (cached.ids, cached.resolver.view.origin) == (["new"], "live")


async def test_a_cached_view_is_used_when_the_registry_is_silent(cached: ResolverFixture) -> None:
    await cached.clock.advance(cached.source.cache_fallback_delay + 0.1)
    assert (cached.ids, cached.resolver.view.origin) == (["kept"], "disk")
    assert cached.resolver.problem == "no answer within 1 s"


async def test_a_program_that_was_suspended_still_waits_for_the_registry(cached: ResolverFixture) -> None:
    cached.clock.jump(30.0)
    await run_until_idle()
    assert cached.resolver.view.origin == "none"
    await cached.receive(full_update(9, endpoint("new")))
    assert cached.ids == ["new"]


async def test_a_cached_view_is_used_rather_than_an_older_view_of_a_lagging_node(cached: ResolverFixture) -> None:
    await cached.receive(full_update(3, endpoint("older")))
    assert (cached.ids, cached.resolver.view.origin) == (["kept"], "disk")
    assert "behind" in cached.resolver.problem


async def test_a_cached_view_older_than_cache_max_age_is_used_with_a_warning(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path, ["http://a:1"])
    cache.save("orders", CACHED)
    for max_age, warning in ((80.0, "is older than cache_max_age (80 s)"), (100.0, "")):
        fixture = ResolverFixture(cache, cache_max_age=max_age)
        assert fixture.resolver.view_warning == ""
        fixture.resolver.start()
        await fixture.receive(ConnectionLost("it is down"))
        assert fixture.ids == ["kept"]
        assert warning in fixture.resolver.view_warning
        assert bool(fixture.resolver.view_warning) is bool(warning)
        await fixture.resolver.close()


async def test_closing_a_resolver_sends_one_goodbye_for_its_service(fixture: ResolverFixture) -> None:
    await fixture.resolver.close()
    await fixture.resolver.close()
    assert fixture.source.goodbyes == [["orders"]]


class CountingViewCache(ViewCache):
    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), ["http://a:1"])
        self.saved: list[CachedView] = []

    def load(self, service: str) -> CachedView | None:
        return None

    def save(self, service: str, view: CachedView) -> None:
        self.saved.append(view)


async def until_saved(cache: CountingViewCache, count: int) -> None:
    """Waits until `count` views were saved; in real time, since writes happen on a thread."""
    async with asyncio.timeout(10.0):
        while len(cache.saved) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_changes_are_written_together_and_heartbeats_now_and_then() -> None:
    cache = CountingViewCache()
    fixture = ResolverFixture(cache)
    fixture.resolver.start()
    await fixture.receive(full_update(1, endpoint("a")))
    await fixture.clock.advance(FIRST_WRITE_DELAY)
    await until_saved(cache, 1)
    assert [saved.position.revision for saved in cache.saved] == [1], (
        "written soon, since the program may live for a second only"
    )
    await fixture.receive(delta_update(1, 2, endpoint("b")), delta_update(2, 3, endpoint("c")))
    await fixture.clock.advance(WRITE_DELAY - 0.1)
    assert len(cache.saved) == 1
    await fixture.clock.advance(0.2)
    await until_saved(cache, 2)
    assert [saved.position.revision for saved in cache.saved] == [1, 3]
    await fixture.receive(delta_update(3, 4))
    await fixture.clock.advance(REWRITE_INTERVAL / 2)
    assert len(cache.saved) == 2
    await fixture.clock.advance(REWRITE_INTERVAL)
    await until_saved(cache, 3)
    assert cache.saved[-1].position.revision == 4
    await fixture.receive(delta_update(4, 5, removed=["a"]))
    await fixture.resolver.close()
    assert cache.saved[-1].position.revision == 5, "the last view is written at the end"


async def test_a_settling_view_is_not_cached() -> None:
    cache = CountingViewCache()
    fixture = ResolverFixture(cache)
    fixture.resolver.start()
    await fixture.receive(full_update(1, endpoint("a")))
    await fixture.clock.advance(2.0)
    await until_saved(cache, 1)
    await fixture.receive(full_update(1, epoch="e2"))
    await fixture.clock.advance(SETTLING_TIME - 1.0)
    assert [saved.position.epoch for saved in cache.saved] == ["e1"]
    await fixture.resolver.close()
    assert [saved.position.epoch for saved in cache.saved] == ["e1"]
