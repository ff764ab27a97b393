"""A watch over its connections, on fake nodes and a fake clock."""

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
from adsum.client.native.acknowledgements import MIN_RESEND_PAUSE
from adsum.client.native.api import RegistryApi
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.service_watch import (
    MAX_AWAITED_CONNECT_PAUSE,
    MAX_CONNECT_PAUSE,
    MAX_STORE_AGE,
    MIN_FAILOVER_INTERVAL,
    RegistryAccess,
    ServiceWatch,
)
from adsum.client.native.transport import TransportReply
from adsum.client.native.watch_connection import FIRST_UPDATE_TIMEOUT
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
    """A consumer that watches orders at two nodes, of which it asks A first."""

    def __init__(self, *urls: str, heartbeat: float = 3.0, seed: int = 1) -> None:
        self.clock = FakeClock()
        self.net = FakeTransport()
        self.net.first_events = opened(heartbeat=heartbeat) + SERVICE + BEAT
        self.api = RegistryApi(urls or (A, B), clock=self.clock, rng=Random(1))
        self.api.transport = self.net  # type: ignore[assignment]
        self.api.nodes._urls = list(urls or (A, B))
        self.heard: list[ServiceUpdate | ConnectionLost] = []
        self.position: ViewPosition | None = None
        registry = RegistryAccess(self.api, self.clock, Random(seed))
        self._watch = ServiceWatch(registry, "orders", lambda: self.position, ConsumerIdentity("test"))
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self._watch.updates()) as groups:
            async for event in groups:
                self.heard.append(event)
                if isinstance(event, ServiceUpdate):
                    self.position = event.position

    @property
    def lost(self) -> list[str]:
        return [event.reason for event in self.heard if isinstance(event, ConnectionLost)]

    @property
    def groups(self) -> list[ServiceUpdate]:
        return [event for event in self.heard if isinstance(event, ServiceUpdate)]

    @property
    def open(self) -> list[FakeStream]:
        return [stream for stream in self.net.streams if not stream.closed]

    async def beat(self, seconds: float, every: float = 1.0) -> None:
        """Let time pass while the open streams of nodes that don't hang beat."""
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
async def watching() -> AsyncIterator[WatchFixture]:
    it = WatchFixture()
    await run_until_idle()
    yield it
    await it.close()


async def test_a_watch_sends_the_consumers_id_and_name_and_asks_for_acknowledgements(watching: WatchFixture) -> None:
    (stream,) = watching.open
    assert (stream.node, stream.params["acks"], stream.params["name"]) == (A, "true", "test")
    assert len(stream.params["consumer"]) == 32
    assert len(watching.groups) == 1


async def test_a_hung_node_delays_the_first_view_by_half_a_second() -> None:
    it = WatchFixture()
    it.net.hanging.add(A)
    await it.clock.advance(HEDGE_DELAY + 0.01)
    assert len(it.groups) == 1
    assert [stream.node for stream in it.open] == [B], "the connection to the node that hangs is closed"
    assert it.lost == []
    assert it.api.nodes.order(it.clock.now()) == [B, A]
    await it.close()


async def test_a_node_that_hangs_after_its_first_bytes_delays_the_first_view_by_the_hedge_delay_only() -> None:
    it = WatchFixture()
    it.net.first_events = opened()
    await run_until_idle()
    it.net.first_events = opened() + SERVICE + BEAT
    await it.clock.advance(HEDGE_DELAY + 0.01)
    assert len(it.groups) == 1
    assert [stream.node for stream in it.open] == [B]
    await it.close()


async def test_a_single_hung_node_is_given_up_after_a_while() -> None:
    it = WatchFixture(A)
    it.net.hanging.add(A)
    await it.clock.advance(FIRST_UPDATE_TIMEOUT + 0.01)
    assert it.lost == [f"{A}: it did not answer in time"]
    await it.close()


async def test_a_silent_connection_is_kept_until_a_new_one_is_ready(watching: WatchFixture) -> None:
    watching.net.hanging.add(B)
    await watching.clock.advance(stale_after(DEFAULT_HEARTBEAT) + MAX_FIRST_RETRY_DELAY)
    assert [stream.node for stream in watching.open] == [A, B]
    watching.open[0].send(BEAT)
    await run_until_idle()
    assert len(watching.groups) == 2, "the silent one may speak again"
    watching.net.hanging.clear()
    await watching.clock.advance(HEDGE_DELAY + 0.01)
    assert [stream.node for stream in watching.open] == [A]
    assert watching.open[0] is not watching.net.streams[0]
    assert watching.lost == [], "the view did not flap"


async def test_silence_is_noticed_before_the_consumer_counts_as_lost(watching: WatchFixture) -> None:
    await watching.beat(30.0)
    assert len(watching.net.streams) == 1
    watching.net.hanging.add(A)
    silent_at = watching.clock.now()
    while len(watching.open) < 2 and watching.open[0].node == A:
        await watching.clock.advance(0.1)
    assert watching.clock.now() - silent_at < lost_after(DEFAULT_HEARTBEAT)
    assert watching.net.idle_closes == 1, "what waits for another request may be as dead as the watch"
    assert [stream.node for stream in watching.open] == [B]
    assert watching.open[0].since == "e1:5"


async def test_the_stated_heartbeat_determines_when_a_connection_is_suspect() -> None:
    it = WatchFixture(heartbeat=0.5)
    await it.clock.advance(2 * 0.5 + MAX_FIRST_RETRY_DELAY + 0.01)
    assert len(it.net.streams) == 2
    await it.close()


async def test_the_acknowledgement_goes_to_the_new_connection(watching: WatchFixture) -> None:
    await run_until_idle()
    assert watching.net.requests == [("POST", f"{A}/api/v1/watches/w1/acknowledge")]
    watching.net.first_events = opened(watch="w2") + BEAT
    watching.net.hanging.add(A)
    await watching.clock.advance(stale_after(DEFAULT_HEARTBEAT) + MAX_FIRST_RETRY_DELAY + 0.01)
    assert watching.net.requests[-1] == ("POST", f"{B}/api/v1/watches/w2/acknowledge")
    first, second = watching.net.streams
    assert first.params["consumer"] == second.params["consumer"]


async def test_an_acknowledgement_that_does_not_arrive_is_sent_again_over_another_new_connection(
    watching: WatchFixture,
) -> None:
    await run_until_idle()
    acknowledged = ("POST", f"{A}/api/v1/watches/w1/acknowledge")
    watching.net.refusing.add(A)
    drained = wire.InstanceView("a", "10.0.0.1", 80, Status.DRAINING)
    (stream,) = watching.open
    stream.send(sse_event("change", wire.ServiceChange("orders", 5, 6, [drained])) + synced_event(6))
    await run_until_idle()
    assert watching.net.requests == [acknowledged] * 2
    watching.net.refusing.clear()
    watching.net.answer = TransportReply(503, {}, b"")
    await watching.clock.advance(3 * MIN_RESEND_PAUSE)
    assert watching.net.requests == [acknowledged] * 3
    watching.net.answer = TransportReply(204, {}, b"")
    await watching.clock.advance(9 * MIN_RESEND_PAUSE)
    assert watching.net.requests == [acknowledged] * 4
    assert watching.net.bodies[1:] == [wire.encode(wire.AcknowledgementBody(6))] * 3
    assert watching.net.fresh == [True] * 4, "one that waits for another request may be cut off"
    await watching.clock.advance(2.0)
    assert watching.net.requests == [acknowledged] * 4


async def test_an_observer_acknowledges_nothing_and_has_no_id() -> None:
    clock, net = FakeClock(), FakeTransport()
    net.first_events = opened() + SERVICE + BEAT
    api = RegistryApi([A], clock=clock, rng=Random(1))
    api.transport = net  # type: ignore[assignment]
    async with aclosing(
        ServiceWatch(RegistryAccess(api, clock, Random(1)), "orders", lambda: None, None).updates()
    ) as groups:
        await anext(groups)
        reading = asyncio.ensure_future(anext(groups))
        await run_until_idle()
        assert net.streams[0].params == {"service": "orders"}
        assert net.requests == []
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_broken_connection_is_replaced_within_the_first_retry_delay(watching: WatchFixture) -> None:
    watching.open[0].send(NodeUnreachable("connection reset"))
    await run_until_idle()
    assert watching.lost == [f"{A}: connection reset"]
    await watching.clock.advance(MAX_FIRST_RETRY_DELAY)
    assert [stream.node for stream in watching.open] == [B]
    assert len(watching.groups) == 2


async def test_connect_pauses_are_short_while_drains_wait_and_grow_afterwards() -> None:
    firsts, awaited, after = list[float](), list[float](), list[float]()
    for seed in range(10):
        it = WatchFixture(seed=seed)
        await run_until_idle()
        it.net.refusing |= {A, B}
        it.open[0].send(NodeUnreachable("connection reset"))
        begun = it.clock.now()
        tries = [0.0]
        for _ in range(600):
            before = len(it.net.streams)
            await it.clock.advance(0.05)
            if len(it.net.streams) > before:
                tries.append(it.clock.now() - begun)
        firsts.append(tries[1])
        for earlier, later in pairwise(tries):
            (awaited if earlier < lost_after(DEFAULT_HEARTBEAT) else after).append(later - earlier)
        await it.close()
    assert max(firsts) <= MAX_FIRST_RETRY_DELAY + 0.05
    assert max(awaited) <= MAX_AWAITED_CONNECT_PAUSE + 0.1
    assert MAX_AWAITED_CONNECT_PAUSE < max(after) <= MAX_CONNECT_PAUSE + 0.1
    assert min(after) < 1.0, "a pause is any part of its bound"


async def test_the_registry_counts_as_lost_only_after_every_node_was_asked() -> None:
    it = WatchFixture()
    it.net.refusing |= {A, B}
    await run_until_idle()
    assert it.lost == [f"{A}: connection refused; {B}: connection refused"]
    it.net.refusing.clear()
    await it.clock.advance(MAX_CONNECT_PAUSE)
    assert len(it.groups) == 1
    await it.close()


async def test_a_node_that_lost_its_store_is_replaced_by_another_node(watching: WatchFixture) -> None:
    watching.net.hanging.add(B)
    old = sse_event("synced", wire.WatchSynced(5, MAX_STORE_AGE), "e1:5")
    watching.open[0].send(old)
    await watching.clock.advance(MAX_FIRST_RETRY_DELAY)
    assert [stream.node for stream in watching.open] == [A, B]
    watching.net.hanging.clear()
    watching.net.refusing.add(B)
    await watching.clock.advance(HEDGE_DELAY + 0.01)
    assert [stream.node for stream in watching.open] == [A], "no other one stands, so the same node is as good"
    watching.open[0].send(old)
    await watching.clock.advance(MIN_FAILOVER_INTERVAL / 20)
    assert len(watching.net.streams) == 3, "it stays for a while"
    assert watching.lost == []


async def test_a_suspended_program_reads_what_arrived_before_it_judges_its_node(watching: WatchFixture) -> None:
    watching.clock.jump(3600.0)
    for _ in range(20):  # What came is read in a few turns of the loop.
        await asyncio.sleep(0)
    watching.open[0].send(BEAT)
    await watching.clock.advance(2.0)
    assert len(watching.net.streams) == 1
    assert watching.api.nodes.current(watching.clock.now()) == A


async def test_closing_a_watch_while_it_connects_leaves_nothing_behind() -> None:
    it = WatchFixture()
    it.net.hanging |= {A, B}
    await it.clock.advance(HEDGE_DELAY + 0.1)
    assert len(it.open) == 2
    await it.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
