from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from adsum.balance.ejection import OutlierOptions
from adsum.balance.picker import NoEndpoint
from adsum.balance.policies import UnknownPolicy
from adsum.balance.slow_start import SlowStart
from adsum.client.calls.channel import Channel
from adsum.client.calls.failures import CallFailed, FailureKind
from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.calls.pick import Pick
from adsum.client.sources.source import ConnectionLost, ViewPosition
from adsum.client.views.resolver import Resolver
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint, Status
from tests.client.fakes import ScriptedSource, delta_update, endpoint, full_update
from tests.support.fakes import FakeClock, run_until_idle


class ChannelFixture:
    """A channel to "orders" over a scripted source."""

    def __init__(self, options: ChannelOptions) -> None:
        self.clock = FakeClock()
        self.source = ScriptedSource()
        self.resolver = Resolver("orders", self.source, cache=None, clock=self.clock, rng=Random(1))
        self.resolver.start()
        self.channel = Channel(self.resolver, options, clock=self.clock, rng=Random(1))

    async def receive(self, *events: object) -> None:
        self.source.emit(*events)  # type: ignore[arg-type]
        await run_until_idle()

    def picked(self, count: int = 200) -> dict[str, int]:
        counts: dict[str, int] = {}
        for _ in range(count):
            with self.channel.pick() as pick:
                counts[pick.endpoint.id] = counts.get(pick.endpoint.id, 0) + 1
        return counts

    async def close(self) -> None:
        await self.channel.close()
        await self.channel.close()
        await self.resolver.close()


@pytest.fixture
async def fixture() -> AsyncIterator[ChannelFixture]:
    fixture = ChannelFixture(
        ChannelOptions(
            policy="round_robin",
            outliers=OutlierOptions(consecutive_failures=2, base_ejection_time=30.0, max_ejected_share=0.5),
        )
    )
    await run_until_idle()
    yield fixture
    await fixture.close()


async def test_a_pick_is_counted_until_it_is_done(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a")))
    pick = fixture.channel.pick()
    load = fixture.channel.loads.load_of("a")
    assert load.in_flight == 1
    await fixture.clock.advance(0.25)
    pick.done()
    pick.done(ok=False)
    pick.cancel()
    assert load.in_flight == 0
    assert load.latency == pytest.approx(0.25)


async def test_a_failed_block_counts_against_the_endpoint_and_a_cancelled_one_does_not(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a"), endpoint("b")))
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt), fixture.channel.pick():
            raise KeyboardInterrupt
    assert fixture.channel.ejected == frozenset()
    for _ in range(4):
        with pytest.raises(ValueError), fixture.channel.pick():
            raise ValueError
    assert len(fixture.channel.ejected) == 1


async def test_an_endpoint_that_left_or_drains_is_not_picked(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a"), endpoint("b"), endpoint("c")))
    assert set(fixture.picked()) == {"a", "b", "c"}
    await fixture.receive(delta_update(1, 2, endpoint("a", Status.DRAINING), removed=["b"]))
    assert set(fixture.picked()) == {"c"}


async def test_the_picker_is_rebuilt_before_an_update_is_acknowledged(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a"), endpoint("b")))
    fixture.source.emit(delta_update(1, 2, endpoint("a", Status.DRAINING)))
    while len(fixture.source.acknowledged) < 2:
        await run_until_idle(1)
        if len(fixture.source.acknowledged) == 2:
            assert set(fixture.picked(4)) == {"b"}


async def test_an_endpoint_that_fails_is_ejected_and_comes_back(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a"), endpoint("b")))
    for _ in range(6):
        pick = fixture.channel.pick()
        pick.done(ok=pick.endpoint.id != "a")
    await run_until_idle()
    assert set(fixture.picked()) == {"b"}
    await fixture.clock.advance(29.0)
    assert set(fixture.picked()) == {"b"}
    await fixture.clock.advance(15.0)
    assert set(fixture.picked()) == {"a", "b"}


async def test_an_endpoint_that_becomes_usable_later_starts_slowly() -> None:
    fixture = ChannelFixture(
        ChannelOptions(policy="weighted_random", slow_start=SlowStart(window=10.0, min_factor=0.1), outliers=None)
    )
    await fixture.receive(full_update(1, endpoint("a")))
    await fixture.receive(delta_update(1, 2, endpoint("b")))
    cold = fixture.picked(1000)
    assert cold["b"] < cold["a"] / 3
    await fixture.clock.advance(12.0)
    warm = fixture.picked(1000)
    assert warm["b"] > warm["a"] / 2
    await fixture.close()


async def test_a_hash_key_keeps_its_endpoint() -> None:
    fixture = ChannelFixture(ChannelOptions(policy="maglev"))
    await fixture.receive(full_update(1, *(endpoint(f"i{n}") for n in range(10))))
    chosen = {fixture.channel.pick("customer-7").endpoint.id for _ in range(20)}
    assert len(chosen) == 1
    await fixture.close()


async def test_picks_go_on_while_the_registry_is_lost(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a")), ConnectionLost("it is down"))
    await fixture.clock.advance(3600.0)
    assert set(fixture.picked()) == {"a"}


async def test_picks_go_on_after_the_channel_was_closed(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a")))
    await fixture.close()
    fixture.channel.pick().done(ok=False)
    assert set(fixture.picked()) == {"a"}


async def test_ready_returns_once_an_endpoint_can_be_picked(fixture: ChannelFixture) -> None:
    with pytest.raises(NoEndpoint, match="no view has arrived yet; the registry is not connected"):
        await fixture.channel.ready(timeout=0.01)
    fixture.source.emit(full_update(1, endpoint("a")))
    await fixture.channel.ready()
    assert fixture.channel.usable_count == 1


async def test_no_endpoint_states_its_reason(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1))
    with pytest.raises(NoEndpoint, match="no endpoint of orders: none is registered; the view is 0 ms old"):
        fixture.channel.pick()
    await fixture.receive(delta_update(1, 2, endpoint("a", Status.DRAINING), endpoint("b", Status.MAINTENANCE)))
    with pytest.raises(NoEndpoint, match=r"none of 2 is usable \(1 draining, 1 maintenance\)"):
        fixture.channel.pick()
    await fixture.receive(delta_update(2, 3, endpoint("c")), ConnectionLost("a: connection refused"))
    await fixture.clock.advance(65.0)
    with pytest.raises(NoEndpoint) as raised:
        fixture.channel.pick(exclude={"c"})
    assert str(raised.value) == (
        "no endpoint of orders: every usable endpoint is excluded (1 usable, 1 excluded); the view is 65 s old; "
        "the registry is not connected (a: connection refused)"
    )


async def test_picking_from_several_threads_loses_no_count(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a"), endpoint("b"), endpoint("c")))

    def work() -> None:
        for n in range(300):
            fixture.channel.pick().done(ok=n % 7 != 0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    revision = 1
    while any(thread.is_alive() for thread in threads):
        await fixture.receive(delta_update(revision, revision + 1, endpoint("c", weight=revision % 5 + 1)))
        revision += 1
    for thread in threads:
        thread.join()
    assert [fixture.channel.loads.load_of(id).in_flight for id in "abc"] == [0, 0, 0]


async def test_an_unknown_policy_is_refused_by_name(fixture: ChannelFixture) -> None:
    with pytest.raises(UnknownPolicy, match="best_effort"):
        Channel(fixture.resolver, ChannelOptions(policy="best_effort"), clock=fixture.clock, rng=Random(1))


async def test_options_out_of_bounds_are_refused(fixture: ChannelFixture) -> None:
    with pytest.raises(Invalid, match="panic_threshold"):
        Channel(fixture.resolver, ChannelOptions(panic_threshold=2.0), clock=fixture.clock, rng=Random(1))


@pytest.mark.parametrize("another", [endpoint("a", process="p2"), endpoint("a", port=81, process="p1")])
async def test_another_process_with_the_same_id_starts_with_an_empty_record(
    fixture: ChannelFixture, another: Endpoint
) -> None:
    await fixture.receive(full_update(1, endpoint("a", process="p1"), endpoint("b")))
    late = next(pick for pick in iter(fixture.channel.pick, None) if pick.endpoint.id == "a")
    for _ in range(6):
        pick = fixture.channel.pick()
        pick.done(ok=pick.endpoint.id != "a", latency=3.0 if pick.endpoint.id == "a" else 0.01)
    await run_until_idle()
    assert set(fixture.picked()) == {"b"}
    await fixture.receive(delta_update(1, 2, another))
    assert set(fixture.picked()) == {"a", "b"}
    load = fixture.channel.loads.load_of("a")
    assert (load.in_flight, load.latency < 1.0) == (0, True)
    for _ in range(3):
        late.done(ok=False)
        late = Pick(fixture.channel, late.endpoint, fixture.channel.loads.start("a"), 0.0)
    await run_until_idle()
    assert set(fixture.picked()) == {"a", "b"}, "calls to the process before do not count for this one"


async def test_a_process_that_registers_again_keeps_its_record(fixture: ChannelFixture) -> None:
    await fixture.receive(full_update(1, endpoint("a", process="p1"), endpoint("b")))
    for _ in range(6):
        pick = fixture.channel.pick()
        pick.done(ok=pick.endpoint.id != "a")
    await fixture.receive(delta_update(1, 2, endpoint("a", process="p1", weight=2)))
    assert set(fixture.picked()) == {"b"}


async def test_another_process_under_the_same_id_starts_slowly() -> None:
    fixture = ChannelFixture(ChannelOptions(policy="round_robin", slow_start=SlowStart(window=100.0)))
    await fixture.receive(full_update(1, endpoint("a", process="p1"), endpoint("b", process="q")))
    assert fixture.picked(100) == {"a": 50, "b": 50}
    await fixture.receive(delta_update(1, 2, endpoint("a", process="p2")))
    assert fixture.picked(110)["a"] <= 15
    await fixture.clock.advance(101.0)
    assert fixture.picked(100) == {"a": 50, "b": 50}
    await fixture.close()


async def test_every_error_warns_of_a_cached_view_older_than_cache_max_age(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path, ["http://a:1"])
    clock, source = FakeClock(), ScriptedSource()
    cache.save("orders", CachedView(ViewPosition("e1", 4), (endpoint("a"),), clock.wall() - 7200.0))
    resolver = Resolver("orders", source, cache=cache, clock=clock, rng=Random(1))
    channel = Channel(resolver, ChannelOptions(), clock=clock, rng=Random(1))
    resolver.start()
    source.emit(ConnectionLost("it is down"))
    await channel.ready()
    warning = "the view was cached on this host 2 h ago and is older than cache_max_age (60 min)"
    with pytest.raises(NoEndpoint) as raised:
        channel.pick(exclude={"a"})
    assert warning in str(raised.value)
    call = channel.call(idempotent=True, options=CallOptions(tries=1))
    call.next_try().record_failure(FailureKind.CONNECT, "connection refused")
    with pytest.raises(CallFailed) as failed:
        call.next_try()
    assert warning in str(failed.value)
    await channel.close()
    await resolver.close()
