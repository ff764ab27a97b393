"""A watch and its connections, on fake nodes and a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from random import Random

import pytest

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import NodeUnreachable
from adsum.client.native.api import RegistryApi
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.transport import TransportReply
from adsum.client.native.watching.acknowledgements import MIN_RESEND_PAUSE
from adsum.client.native.watching.joint_watch import MAX_AWAITED_CONNECT_PAUSE, MAX_CONNECT_PAUSE
from adsum.client.native.watching.registry_access import MAX_STORE_AGE, MIN_FAILOVER_INTERVAL, RegistryAccess
from adsum.client.native.watching.watch_connection import FIRST_UPDATE_TIMEOUT
from adsum.client.native.watching.watch_pool import WatchPool
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, MAX_FIRST_RETRY_DELAY, lost_after, stale_after
from adsum.core.model import Status
from tests.client.fakes import FakeStream, FakeTransport
from tests.client.stub_node import sse_event, synced_event
from tests.support.fakes import FakeClock, run_until_idle

A, B = "http://a:1", "http://b:1"
INSTANCE = wire.InstanceView("a", "10.0.0.1", 80, Status.PASSING)
SERVICE = sse_event("service", wire.ServiceView("e1", "orders", 5, [INSTANCE]))
BEAT = synced_event(5)


def opened(*, heartbeat: float = 3.0, watch: str = "w1") -> bytes:
    return sse_event("open", wire.WatchOpened("e1", 5, True, watch, heartbeat=heartbeat))


class WatchFixture:
    """A consumer that watches orders at two nodes, of which it tries A first."""

    def __init__(self, *urls: str, heartbeat: float = 3.0, seed: int = 1) -> None:
        self.clock = FakeClock()
        self.net = FakeTransport()
        self.net.first_events = opened(heartbeat=heartbeat) + SERVICE + BEAT
        self.api = RegistryApi(urls or (A, B), clock=self.clock, rng=Random(1))
        self.api.transport = self.net  # type: ignore[assignment]
        self.api.nodes._urls = list(urls or (A, B))
        self.events: list[ServiceUpdate | ConnectionLost] = []
        self.position: ViewPosition | None = None
        registry = RegistryAccess(self.api, self.clock, Random(seed))
        self._pool = WatchPool(registry)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        consumer = ConsumerIdentity("test")
        async with aclosing(self._pool.follow("orders", lambda: self.position, consumer)) as updates:
            async for event in updates:
                self.events.append(event)
                if isinstance(event, ServiceUpdate):
                    self.position = event.position

    @property
    def lost(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, ConnectionLost)]

    @property
    def updates(self) -> list[ServiceUpdate]:
        return [event for event in self.events if isinstance(event, ServiceUpdate)]

    @property
    def open(self) -> list[FakeStream]:
        return [stream for stream in self.net.streams if not stream.closed]

    async def beat(self, seconds: float, every: float = 1.0) -> None:
        """Lets time pass, with heartbeats on the open streams of nodes that do not hang."""
        for _ in range(round(seconds / every)):
            for stream in self.open:
                if stream.node not in self.net.hanging:
                    stream.send(BEAT)
            await self.clock.advance(every)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert self.open == []


@pytest.fixture
async def fixture() -> AsyncIterator[WatchFixture]:
    fixture = WatchFixture()
    await run_until_idle()
    yield fixture
    await fixture.close()


async def test_a_watch_sends_the_consumers_id_and_name_and_asks_for_acknowledgements(fixture: WatchFixture) -> None:
    (stream,) = fixture.open
    assert (stream.node, stream.params["acks"], stream.params["name"]) == (A, "true", "test")
    assert len(stream.params["consumer"]) == 32
    assert len(fixture.updates) == 1


async def test_a_hung_node_delays_the_first_view_by_half_a_second() -> None:
    fixture = WatchFixture()
    fixture.net.hanging.add(A)
    await fixture.clock.advance(HEDGE_DELAY + 0.01)
    assert len(fixture.updates) == 1
    assert [stream.node for stream in fixture.open] == [B], "the connection to the hung node is closed"
    assert fixture.lost == []
    assert fixture.api.nodes.order(fixture.clock.now()) == [B, A]
    await fixture.close()


async def test_a_node_that_hangs_after_its_first_bytes_delays_the_first_view_by_the_hedge_delay_only() -> None:
    fixture = WatchFixture()
    fixture.net.first_events = opened()
    await run_until_idle()
    fixture.net.first_events = opened() + SERVICE + BEAT
    await fixture.clock.advance(HEDGE_DELAY + 0.01)
    assert len(fixture.updates) == 1
    assert [stream.node for stream in fixture.open] == [B]
    await fixture.close()


async def test_a_connection_to_a_hung_node_is_closed_after_a_while() -> None:
    fixture = WatchFixture(A)
    fixture.net.hanging.add(A)
    await fixture.clock.advance(FIRST_UPDATE_TIMEOUT + 0.01)
    assert fixture.lost == [f"{A}: it did not answer in time"]
    await fixture.close()


async def test_a_silent_connection_is_kept_until_a_new_one_is_ready(fixture: WatchFixture) -> None:
    fixture.net.hanging.add(B)
    await fixture.clock.advance(stale_after(DEFAULT_HEARTBEAT) + MAX_FIRST_RETRY_DELAY)
    assert [stream.node for stream in fixture.open] == [A, B]
    fixture.open[0].send(BEAT)
    await run_until_idle()
    assert len(fixture.updates) == 2, "the suspect connection may send again"
    fixture.net.hanging.clear()
    await fixture.clock.advance(HEDGE_DELAY + 0.01)
    assert [stream.node for stream in fixture.open] == [A]
    assert fixture.open[0] is not fixture.net.streams[0]
    assert fixture.lost == [], "the view did not flap"


async def test_silence_is_noticed_before_the_consumer_counts_as_lost(fixture: WatchFixture) -> None:
    await fixture.beat(30.0)
    assert len(fixture.net.streams) == 1
    fixture.net.hanging.add(A)
    silent_at = fixture.clock.now()
    while len(fixture.open) < 2 and fixture.open[0].node == A:
        await fixture.clock.advance(0.1)
    assert fixture.clock.now() - silent_at < lost_after(DEFAULT_HEARTBEAT)
    assert fixture.net.idle_closes == 1, "idle connections may be as dead as the watch"
    assert [stream.node for stream in fixture.open] == [B]
    assert fixture.open[0].since == "e1:5"


async def test_the_stated_heartbeat_determines_when_a_connection_is_suspect() -> None:
    fixture = WatchFixture(heartbeat=0.5)
    await fixture.clock.advance(2 * 0.5 + MAX_FIRST_RETRY_DELAY + 0.01)
    assert len(fixture.net.streams) == 2
    await fixture.close()


async def test_the_acknowledgement_goes_to_the_new_connection(fixture: WatchFixture) -> None:
    await run_until_idle()
    assert fixture.net.requests == [("POST", f"{A}/api/v1/watches/w1/acknowledge")]
    fixture.net.first_events = opened(watch="w2") + BEAT
    fixture.net.hanging.add(A)
    await fixture.clock.advance(stale_after(DEFAULT_HEARTBEAT) + MAX_FIRST_RETRY_DELAY + 0.01)
    assert fixture.net.requests[-1] == ("POST", f"{B}/api/v1/watches/w2/acknowledge")
    first, second = fixture.net.streams
    assert first.params["consumer"] == second.params["consumer"]


async def test_an_acknowledgement_that_does_not_arrive_is_sent_again_over_another_new_connection(
    fixture: WatchFixture,
) -> None:
    await run_until_idle()
    acknowledged = ("POST", f"{A}/api/v1/watches/w1/acknowledge")
    fixture.net.refusing.add(A)
    drained = wire.InstanceView("a", "10.0.0.1", 80, Status.DRAINING)
    (stream,) = fixture.open
    stream.send(sse_event("change", wire.ServiceChange("orders", 5, 6, [drained])) + synced_event(6))
    await run_until_idle()
    assert fixture.net.requests == [acknowledged] * 2
    fixture.net.refusing.clear()
    fixture.net.answer = TransportReply(503, {}, b"")
    await fixture.clock.advance(3 * MIN_RESEND_PAUSE)
    assert fixture.net.requests == [acknowledged] * 3
    fixture.net.answer = TransportReply(204, {}, b"")
    await fixture.clock.advance(9 * MIN_RESEND_PAUSE)
    assert fixture.net.requests == [acknowledged] * 4
    assert fixture.net.bodies[1:] == [wire.encode(wire.AcknowledgementBody(6))] * 3
    assert fixture.net.fresh == [True] * 4, "an idle connection may be cut off"
    await fixture.clock.advance(2.0)
    assert fixture.net.requests == [acknowledged] * 4


async def test_an_observer_acknowledges_nothing_and_has_no_id() -> None:
    clock, net = FakeClock(), FakeTransport()
    net.first_events = opened() + SERVICE + BEAT
    api = RegistryApi([A], clock=clock, rng=Random(1))
    api.transport = net  # type: ignore[assignment]
    pool = WatchPool(RegistryAccess(api, clock, Random(1)))
    async with aclosing(pool.follow("orders", lambda: None, None)) as updates:
        await anext(updates)
        reading = asyncio.ensure_future(anext(updates))
        await run_until_idle()
        assert net.streams[0].params == {"service": "orders"}
        assert net.requests == []
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_broken_connection_is_replaced_within_the_first_retry_delay(fixture: WatchFixture) -> None:
    fixture.open[0].send(NodeUnreachable("connection reset"))
    await run_until_idle()
    assert fixture.lost == [f"{A}: connection reset"]
    await fixture.clock.advance(MAX_FIRST_RETRY_DELAY)
    assert [stream.node for stream in fixture.open] == [B]
    assert len(fixture.updates) == 2


async def test_connect_pauses_are_short_while_drains_wait_and_grow_afterwards() -> None:
    firsts, awaited, after = list[float](), list[float](), list[float]()
    for seed in range(10):
        fixture = WatchFixture(seed=seed)
        await run_until_idle()
        fixture.net.refusing |= {A, B}
        fixture.open[0].send(NodeUnreachable("connection reset"))
        began = fixture.clock.now()
        tries = [0.0]
        for _ in range(600):
            before = len(fixture.net.streams)
            await fixture.clock.advance(0.05)
            if len(fixture.net.streams) > before:
                tries.append(fixture.clock.now() - began)
        firsts.append(tries[1])
        for earlier, later in pairwise(tries):
            (awaited if earlier < lost_after(DEFAULT_HEARTBEAT) else after).append(later - earlier)
        await fixture.close()
    assert max(firsts) <= MAX_FIRST_RETRY_DELAY + 0.05
    assert max(awaited) <= MAX_AWAITED_CONNECT_PAUSE + 0.1
    assert MAX_AWAITED_CONNECT_PAUSE < max(after) <= MAX_CONNECT_PAUSE + 0.1
    assert min(after) < 1.0, "a pause is drawn from 0 to its bound"


async def test_the_registry_counts_as_lost_only_after_every_node_was_tried() -> None:
    fixture = WatchFixture()
    fixture.net.refusing |= {A, B}
    await run_until_idle()
    assert fixture.lost == [f"{A}: connection refused; {B}: connection refused"]
    fixture.net.refusing.clear()
    await fixture.clock.advance(MAX_CONNECT_PAUSE)
    assert len(fixture.updates) == 1
    await fixture.close()


async def test_a_node_that_lost_its_store_is_replaced_by_another_node(fixture: WatchFixture) -> None:
    fixture.net.hanging.add(B)
    old = sse_event("synced", wire.WatchSynced(5, MAX_STORE_AGE), "e1:5")
    fixture.open[0].send(old)
    await fixture.clock.advance(MAX_FIRST_RETRY_DELAY)
    assert [stream.node for stream in fixture.open] == [A, B]
    fixture.net.hanging.clear()
    fixture.net.refusing.add(B)
    await fixture.clock.advance(HEDGE_DELAY + 0.01)
    assert [stream.node for stream in fixture.open] == [A], "no other node is up, so the same node is used"
    fixture.open[0].send(old)
    await fixture.clock.advance(MIN_FAILOVER_INTERVAL / 20)
    assert len(fixture.net.streams) == 3, "there is no other failover for a while"
    assert fixture.lost == []


async def test_a_suspended_program_reads_what_arrived_before_it_judges_its_node(fixture: WatchFixture) -> None:
    fixture.clock.jump(3600.0)
    for _ in range(20):  # The event is read in a few turns of the loop.
        await asyncio.sleep(0)
    fixture.open[0].send(BEAT)
    await fixture.clock.advance(2.0)
    assert len(fixture.net.streams) == 1
    assert fixture.api.nodes.current(fixture.clock.now()) == A


async def test_closing_a_watch_while_it_connects_leaves_no_task() -> None:
    fixture = WatchFixture()
    fixture.net.hanging |= {A, B}
    await fixture.clock.advance(HEDGE_DELAY + 0.1)
    assert len(fixture.open) == 2
    await fixture.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
