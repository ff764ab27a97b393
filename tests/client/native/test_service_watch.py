"""A watch over its connections, on fake nodes and a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from random import Random

import pytest

from adsum import wire
from adsum.client.consumer_identity import Consumer
from adsum.client.errors import Unreachable
from adsum.client.native.acknowledgements import FIRST_PAUSE
from adsum.client.native.api import Api
from adsum.client.native.hedged_requests import SILENCE
from adsum.client.native.service_watch import AWAITED_PAUSE_MAX, PAUSE_MAX, STAY, TOO_OLD, RegistryAccess, Watch
from adsum.client.native.transport import Reply
from adsum.client.native.watch_connection import FIRST_GROUP
from adsum.client.sources.source import Group, Lost, Position
from adsum.core.liveness.heartbeats import FIRST_PAUSE_MAX, HEARTBEAT, lost_after, staleness
from adsum.core.model import Status
from tests.client.fakes import FakeStream, FakeTransport
from tests.client.stub_node import said, synced
from tests.support.fakes import FakeClock, settle

A, B = "http://a:1", "http://b:1"
INSTANCE = wire.InstanceView("a", "10.0.0.1", 80, Status.PASSING)
SERVICE = said("service", wire.ServiceView("e1", "orders", 5, [INSTANCE]))
BEAT = synced(5)


def opened(*, heartbeat: float = 3.0, watch: str = "w1") -> bytes:
    return said("open", wire.Opened("e1", 5, True, watch, heartbeat=heartbeat))


class Watching:
    """A consumer that watches orders at two nodes, of which it asks A first."""

    def __init__(self, *urls: str, heartbeat: float = 3.0, seed: int = 1) -> None:
        self.clock = FakeClock()
        self.net = FakeTransport()
        self.net.greeting = opened(heartbeat=heartbeat) + SERVICE + BEAT
        self.api = Api(urls or (A, B), clock=self.clock, rng=Random(1))
        self.api.transport = self.net  # type: ignore[assignment]
        self.api.nodes._urls = list(urls or (A, B))
        self.heard: list[Group | Lost] = []
        self.position: Position | None = None
        registry = RegistryAccess(self.api, self.clock, Random(seed))
        self._watch = Watch(registry, "orders", lambda: self.position, Consumer("test"))
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self._watch.groups()) as groups:
            async for event in groups:
                self.heard.append(event)
                if isinstance(event, Group):
                    self.position = event.position

    @property
    def lost(self) -> list[str]:
        return [event.why for event in self.heard if isinstance(event, Lost)]

    @property
    def groups(self) -> list[Group]:
        return [event for event in self.heard if isinstance(event, Group)]

    @property
    def open(self) -> list[FakeStream]:
        return [stream for stream in self.net.streams if not stream.closed]

    async def beat(self, seconds: float, every: float = 1.0) -> None:
        """Let time pass while the open streams of nodes that don't hang beat."""
        for _ in range(round(seconds / every)):
            for stream in self.open:
                if stream.node not in self.net.hanging:
                    stream.say(BEAT)
            await self.clock.advance(every)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert self.open == []


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    it = Watching()
    await settle()
    yield it
    await it.close()


async def test_a_consumer_names_itself_and_looks_for_acknowledgements(watching: Watching) -> None:
    (stream,) = watching.open
    assert (stream.node, stream.params["acks"], stream.params["name"]) == (A, "true", "test")
    assert len(stream.params["consumer"]) == 32
    assert len(watching.groups) == 1


async def test_a_node_that_hangs_delays_the_first_view_by_half_a_second() -> None:
    it = Watching()
    it.net.hanging.add(A)
    await it.clock.advance(SILENCE + 0.01)
    assert len(it.groups) == 1
    assert [stream.node for stream in it.open] == [B], "the connection to the node that hangs is closed"
    assert it.lost == []
    assert it.api.nodes.order(it.clock.now()) == [B, A]
    await it.close()


async def test_a_node_that_hangs_after_the_head_of_its_answer_delays_the_first_view_no_longer() -> None:
    it = Watching()
    it.net.greeting = opened()
    await settle()
    it.net.greeting = opened() + SERVICE + BEAT
    await it.clock.advance(SILENCE + 0.01)
    assert len(it.groups) == 1
    assert [stream.node for stream in it.open] == [B]
    await it.close()


async def test_a_single_node_that_hangs_is_given_up_after_a_while() -> None:
    it = Watching(A)
    it.net.hanging.add(A)
    await it.clock.advance(FIRST_GROUP + 0.01)
    assert it.lost == [f"{A}: it did not answer in time"]
    await it.close()


async def test_a_silent_connection_is_kept_until_a_new_one_stands(watching: Watching) -> None:
    watching.net.hanging.add(B)
    await watching.clock.advance(staleness(HEARTBEAT) + FIRST_PAUSE_MAX)
    assert [stream.node for stream in watching.open] == [A, B]
    watching.open[0].say(BEAT)
    await settle()
    assert len(watching.groups) == 2, "the silent one may speak again"
    watching.net.hanging.clear()
    await watching.clock.advance(SILENCE + 0.01)
    assert [stream.node for stream in watching.open] == [A]
    assert watching.open[0] is not watching.net.streams[0]
    assert watching.lost == [], "the view did not flap"


async def test_silence_is_noticed_within_two_heartbeats_and_the_longest_first_pause(watching: Watching) -> None:
    await watching.beat(30.0)
    assert len(watching.net.streams) == 1
    watching.net.hanging.add(A)
    silent_at = watching.clock.now()
    while len(watching.open) < 2 and watching.open[0].node == A:
        await watching.clock.advance(0.1)
    assert watching.clock.now() - silent_at < lost_after(HEARTBEAT)
    assert watching.net.drops == 1, "what waits for another request may be as dead as the watch"
    assert [stream.node for stream in watching.open] == [B]
    assert watching.open[0].since == "e1:5"


async def test_how_long_silence_may_last_follows_from_the_heartbeat_that_the_node_states() -> None:
    it = Watching(heartbeat=0.5)
    await it.clock.advance(2 * 0.5 + FIRST_PAUSE_MAX + 0.01)
    assert len(it.net.streams) == 2
    await it.close()


async def test_the_acknowledgement_goes_to_the_new_connection(watching: Watching) -> None:
    await settle()
    assert watching.net.requests == [("POST", f"{A}/api/v1/watches/w1/applied")]
    watching.net.greeting = opened(watch="w2") + BEAT
    watching.net.hanging.add(A)
    await watching.clock.advance(staleness(HEARTBEAT) + FIRST_PAUSE_MAX + 0.01)
    assert watching.net.requests[-1] == ("POST", f"{B}/api/v1/watches/w2/applied")
    first, second = watching.net.streams
    assert first.params["consumer"] == second.params["consumer"]


async def test_an_acknowledgement_that_does_not_arrive_is_sent_again_over_another_new_connection(
    watching: Watching,
) -> None:
    await settle()
    acknowledged = ("POST", f"{A}/api/v1/watches/w1/applied")
    watching.net.refusing.add(A)
    drained = wire.InstanceView("a", "10.0.0.1", 80, Status.DRAINING)
    (stream,) = watching.open
    stream.say(said("change", wire.ServiceChange("orders", 5, 6, [drained])) + synced(6))
    await settle()
    assert watching.net.requests == [acknowledged] * 2
    watching.net.refusing.clear()
    watching.net.answer = Reply(503, {}, b"")
    await watching.clock.advance(3 * FIRST_PAUSE)
    assert watching.net.requests == [acknowledged] * 3
    watching.net.answer = Reply(204, {}, b"")
    await watching.clock.advance(9 * FIRST_PAUSE)
    assert watching.net.requests == [acknowledged] * 4
    assert watching.net.bodies[1:] == [wire.encode(wire.AppliedBody(6))] * 3
    assert watching.net.fresh == [True] * 4, "one that waits for another request may be cut off"
    await watching.clock.advance(2.0)
    assert watching.net.requests == [acknowledged] * 4


async def test_an_onlooker_acknowledges_nothing_and_has_no_id() -> None:
    clock, net = FakeClock(), FakeTransport()
    net.greeting = opened() + SERVICE + BEAT
    api = Api([A], clock=clock, rng=Random(1))
    api.transport = net  # type: ignore[assignment]
    async with aclosing(Watch(RegistryAccess(api, clock, Random(1)), "orders", lambda: None, None).groups()) as groups:
        await anext(groups)
        reading = asyncio.ensure_future(anext(groups))
        await settle()
        assert net.streams[0].params == {"service": "orders"}
        assert net.requests == []
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_connection_that_breaks_is_replaced_within_the_longest_first_pause(watching: Watching) -> None:
    watching.open[0].say(Unreachable("connection reset"))
    await settle()
    assert watching.lost == [f"{A}: connection reset"]
    await watching.clock.advance(FIRST_PAUSE_MAX)
    assert [stream.node for stream in watching.open] == [B]
    assert len(watching.groups) == 2


async def test_pauses_are_short_while_drains_wait_for_the_consumer_and_grow_then() -> None:
    firsts, awaited, after = list[float](), list[float](), list[float]()
    for seed in range(10):
        it = Watching(seed=seed)
        await settle()
        it.net.refusing |= {A, B}
        it.open[0].say(Unreachable("connection reset"))
        begun = it.clock.now()
        tries = [0.0]
        for _ in range(600):
            before = len(it.net.streams)
            await it.clock.advance(0.05)
            if len(it.net.streams) > before:
                tries.append(it.clock.now() - begun)
        firsts.append(tries[1])
        for earlier, later in pairwise(tries):
            (awaited if earlier < lost_after(HEARTBEAT) else after).append(later - earlier)
        await it.close()
    assert max(firsts) <= FIRST_PAUSE_MAX + 0.05
    assert max(awaited) <= AWAITED_PAUSE_MAX + 0.1
    assert AWAITED_PAUSE_MAX < max(after) <= PAUSE_MAX + 0.1
    assert min(after) < 1.0, "a pause is any part of its bound"


async def test_every_node_was_asked_before_the_registry_counts_as_lost() -> None:
    it = Watching()
    it.net.refusing |= {A, B}
    await settle()
    assert it.lost == [f"{A}: connection refused; {B}: connection refused"]
    it.net.refusing.clear()
    await it.clock.advance(PAUSE_MAX)
    assert len(it.groups) == 1
    await it.close()


async def test_a_node_that_lost_its_store_is_left_for_another_that_stands(watching: Watching) -> None:
    watching.net.hanging.add(B)
    old = said("synced", wire.Synced(5, TOO_OLD), "e1:5")
    watching.open[0].say(old)
    await watching.clock.advance(FIRST_PAUSE_MAX)
    assert [stream.node for stream in watching.open] == [A, B]
    watching.net.hanging.clear()
    watching.net.refusing.add(B)
    await watching.clock.advance(SILENCE + 0.01)
    assert [stream.node for stream in watching.open] == [A], "no other one stands, so the same node is as good"
    watching.open[0].say(old)
    await watching.clock.advance(STAY / 20)
    assert len(watching.net.streams) == 3, "it stays for a while"
    assert watching.lost == []


async def test_a_program_that_was_suspended_reads_what_came_before_it_judges_its_node(watching: Watching) -> None:
    watching.clock.jump(3600.0)
    for _ in range(20):  # What came is read in a few turns of the loop.
        await asyncio.sleep(0)
    watching.open[0].say(BEAT)
    await watching.clock.advance(2.0)
    assert len(watching.net.streams) == 1
    assert watching.api.nodes.current(watching.clock.now()) == A


async def test_closing_a_watch_while_it_connects_leaves_nothing_behind() -> None:
    it = Watching()
    it.net.hanging |= {A, B}
    await it.clock.advance(SILENCE + 0.1)
    assert len(it.open) == 2
    await it.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
