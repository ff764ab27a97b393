"""Services that share one watch, on fake nodes and a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from random import Random

import pytest

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import NodeUnreachable
from adsum.client.native.api import RegistryApi
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.transport import TransportReply
from adsum.client.native.watching.join_requests import MAX_JOIN_ATTEMPTS, MAX_RETRY_PAUSE
from adsum.client.native.watching.joint_watch import MAX_CONNECT_PAUSE
from adsum.client.native.watching.registry_access import RegistryAccess
from adsum.client.native.watching.watch_pool import WatchPool
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, MAX_FIRST_RETRY_DELAY, stale_after
from adsum.core.model import Status
from tests.client.fakes import INVISIBLE_REPLY, FakeStream, FakeTransport
from tests.client.stub_node import sse_event, synced_event
from tests.support.fakes import FakeClock, run_until_idle

A, B = "http://a:1", "http://b:1"
UNKNOWN_WATCH = TransportReply(404, {}, wire.encode(wire.Problem("Not Found", 404, "no such watch")))
DECLINED = TransportReply(503, {}, wire.encode(wire.Problem("Unavailable", 503, "not now")))


def opened(*, full: bool = True, watch: str = "w1", joins: bool = True, revision: int = 5) -> bytes:
    return sse_event("open", wire.WatchOpened("e1", revision, full, watch, heartbeat=3.0, joins=joins))


def full_state(service: str, *ids: str, revision: int = 5, status: Status = Status.PASSING) -> bytes:
    views = [wire.InstanceView(id, "10.0.0.1", 80, status) for id in ids]
    return sse_event("service", wire.ServiceView("e1", service, revision, views))


def change(service: str, since: int, revision: int, id: str, status: Status = Status.PASSING) -> bytes:
    view = wire.InstanceView(id, "10.0.0.1", 80, status)
    return sse_event("change", wire.ServiceChange(service, since, revision, [view]))


def joined(service: str, since: int | None = None) -> bytes:
    return sse_event("joined", wire.ServiceJoined(service, since is None, since or 0))


class Follower:
    """A consumer of one service."""

    def __init__(self, pool: WatchPool, service: str, consumer: ConsumerIdentity | None) -> None:
        self.service = service
        self.events: list[ServiceUpdate | ConnectionLost] = []
        self.position: ViewPosition | None = None
        self.reads = asyncio.Event()
        """Clear: it takes no event."""
        self.reads.set()
        self.task = asyncio.create_task(self._run(pool, consumer))

    async def _run(self, pool: WatchPool, consumer: ConsumerIdentity | None) -> None:
        async with aclosing(pool.follow(self.service, lambda: self.position, consumer)) as updates:
            async for event in updates:
                self.events.append(event)
                if isinstance(event, ServiceUpdate):
                    self.position = event.position
                await self.reads.wait()

    @property
    def updates(self) -> list[ServiceUpdate]:
        return [event for event in self.events if isinstance(event, ServiceUpdate)]

    @property
    def lost(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, ConnectionLost)]

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class PoolFixture:
    """A client of two nodes, of which it tries A first."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.net = FakeTransport()
        api = RegistryApi((A, B), clock=self.clock, rng=Random(1))
        api.transport = self.net  # type: ignore[assignment]
        api.nodes._urls = [A, B]
        self.consumer: ConsumerIdentity | None = ConsumerIdentity("test")
        self.pool = WatchPool(RegistryAccess(api, self.clock, Random(1)))
        self.followers: list[Follower] = []

    def follow(self, service: str) -> Follower:
        follower = Follower(self.pool, service, self.consumer)
        self.followers.append(follower)
        return follower

    @property
    def open(self) -> list[FakeStream]:
        return [stream for stream in self.net.streams if not stream.closed]

    async def send(self, *chunks: bytes, stream: int = 0) -> None:
        """Sends over one of the open streams."""
        self.open[stream].send(*chunks)
        await run_until_idle()

    async def start_both(self) -> tuple[Follower, Follower]:
        """Returns followers of orders and users, which have their first view."""
        orders, users = self.follow("orders"), self.follow("users")
        await run_until_idle()
        await self.send(opened() + full_state("orders", "a") + full_state("users", "u") + synced_event(5))
        return orders, users

    @property
    def joins(self) -> list[tuple[str, list[str], list[str]]]:
        """The requests that changed the services of a watch: the URL, and what joined and left."""
        bodies = zip(self.net.requests, self.net.bodies, strict=True)
        decoded = [
            (url, wire.decode(body, wire.WatchServicesBody))
            for (_, url), body in bodies
            if url.endswith("/services") and body is not None
        ]
        return [(url, [service.service for service in body.join], body.leave) for url, body in decoded]

    @property
    def acknowledgements(self) -> list[tuple[int, list[str]]]:
        bodies = zip(self.net.requests, self.net.bodies, strict=True)
        decoded = [
            wire.decode(body, wire.AcknowledgementBody)
            for (_, url), body in bodies
            if url.endswith("/acknowledge") and body is not None
        ]
        return [(body.revision, body.services) for body in decoded]

    async def close(self) -> None:
        for follower in self.followers:
            await follower.close()
        assert self.open == []
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def fixture() -> AsyncIterator[PoolFixture]:
    fixture = PoolFixture()
    yield fixture
    await fixture.close()


def ids(update: ServiceUpdate) -> list[str]:
    return sorted(update.changed)


async def test_services_that_are_followed_at_once_share_the_request_of_one_watch(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    assert [stream.services for stream in fixture.net.streams] == [["orders", "users"]]
    assert [ids(update) for update in orders.updates] == [["a"]]
    assert [ids(update) for update in users.updates] == [["u"]]
    assert fixture.joins == []


async def test_a_service_joins_the_watch_that_is_open_and_the_others_are_not_sent_again(fixture: PoolFixture) -> None:
    orders, _ = await fixture.start_both()
    carts = fixture.follow("carts")
    await run_until_idle()
    assert fixture.joins == [(f"{A}/api/v1/watches/w1/services", ["carts"], [])]
    await fixture.send(joined("carts") + full_state("carts", "c") + synced_event(5))
    assert len(fixture.net.streams) == 1
    assert [(update.full, ids(update)) for update in carts.updates] == [(True, ["c"])]
    assert [update.full for update in orders.updates] == [True, False], "a heartbeat for the others"


async def test_services_that_join_at_once_share_a_request(fixture: PoolFixture) -> None:
    await fixture.start_both()
    for service in ("carts", "stock", "mail"):
        fixture.follow(service)
    await run_until_idle()
    assert [join for _, join, _ in fixture.joins] == [["carts", "stock", "mail"]]


async def test_a_service_leaves_the_watch_when_nobody_follows_it(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    await users.close()
    await run_until_idle()
    assert fixture.joins == [(f"{A}/api/v1/watches/w1/services", [], ["users"])]
    await fixture.send(change("users", 5, 6, "v") + change("orders", 5, 6, "b") + synced_event(6))
    assert ids(orders.updates[-1]) == ["b"]
    again = fixture.follow("users")
    await run_until_idle()
    assert fixture.joins[1:] == [(f"{A}/api/v1/watches/w1/services", ["users"], [])]
    await fixture.send(joined("users") + full_state("users", "v", revision=6) + synced_event(6))
    assert [ids(update) for update in again.updates] == [["v"]]


async def test_the_watch_ends_with_its_last_service(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    await asyncio.gather(users.close(), orders.close())
    assert fixture.open == []
    assert fixture.joins == [], "nothing has to leave a watch that ends"


async def test_two_followers_of_one_service_have_two_watches(fixture: PoolFixture) -> None:
    fixture.follow("orders")
    fixture.follow("orders")
    await run_until_idle()
    assert [stream.services for stream in fixture.open] == [["orders"], ["orders"]]


async def test_a_slow_consumer_delays_no_other_and_skips_to_the_latest_state(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    orders.reads.clear()
    await fixture.send(change("orders", 5, 6, "b") + synced_event(6))
    for revision in range(7, 10):
        both = change("orders", revision - 1, revision, f"o{revision}") + change("users", 5, revision, "u")
        await fixture.send(both + synced_event(revision))
    assert [update.position.revision for update in users.updates] == [5, 6, 7, 8, 9]
    assert [update.position.revision for update in orders.updates] == [5, 6]
    orders.reads.set()
    await run_until_idle()
    assert [update.position.revision for update in orders.updates] == [5, 6, 9]
    assert ids(orders.updates[-1]) == ["o7", "o8", "o9"]


async def test_acknowledgements_of_several_services_share_a_request(fixture: PoolFixture) -> None:
    await fixture.start_both()
    assert fixture.acknowledgements == [(5, ["orders", "users"])]
    await fixture.send(change("users", 5, 6, "u", Status.DRAINING) + synced_event(6))
    await fixture.send(change("orders", 5, 7, "b") + synced_event(7))
    assert fixture.acknowledgements[1:] == [(6, ["users"])], "drains do not wait for an added endpoint"


async def test_a_consumer_that_is_slow_acknowledges_only_its_own_service_late(fixture: PoolFixture) -> None:
    orders, _ = await fixture.start_both()
    orders.reads.clear()
    await fixture.send(synced_event(6))
    drained = change("orders", 6, 7, "a", Status.DRAINING) + change("users", 6, 7, "u", Status.DRAINING)
    await fixture.send(drained + synced_event(7))
    assert fixture.acknowledgements[1:] == [(7, ["users"])]
    orders.reads.set()
    await run_until_idle()
    assert fixture.acknowledgements[2:] == [(7, ["orders"])]


async def test_a_new_connection_resumes_every_service_from_its_position(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    carts = fixture.follow("carts")
    await run_until_idle()
    fixture.open[0].send(NodeUnreachable("connection reset"))
    await run_until_idle()
    assert [follower.lost for follower in (orders, users, carts)] == [[f"{A}: connection reset"]] * 3
    await fixture.clock.advance(MAX_FIRST_RETRY_DELAY)
    (stream,) = fixture.open
    assert (stream.node, stream.services, stream.since) == (B, ["orders", "users"], "e1:5")
    await fixture.send(opened(full=False, watch="w2", revision=6) + change("users", 5, 6, "v") + synced_event(6))
    assert fixture.joins[1:] == [(f"{B}/api/v1/watches/w2/services", ["carts"], [])]
    await fixture.send(joined("carts") + full_state("carts", "c") + synced_event(6))
    assert [(update.full, update.since, ids(update)) for update in users.updates[1:]] == [(False, 5, ["v"])]
    assert [(update.full, update.since, ids(update)) for update in orders.updates[1:]] == [(False, 5, [])]
    assert [(update.full, ids(update)) for update in carts.updates] == [(True, ["c"])]


async def test_an_old_connection_stays_until_every_service_has_joined_the_new_one(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    users.position = ViewPosition("e1", 4)  # It has fallen behind.
    await fixture.clock.advance(stale_after(DEFAULT_HEARTBEAT) + MAX_FIRST_RETRY_DELAY)
    assert [(stream.node, stream.services) for stream in fixture.open] == [(A, ["orders", "users"]), (B, ["orders"])]
    await fixture.send(opened(full=False, watch="w2") + synced_event(5), stream=1)
    assert [stream.node for stream in fixture.open] == [A, B], "users has not joined"
    await fixture.send(change("orders", 5, 6, "b") + synced_event(6))
    assert ids(orders.updates[-1]) == ["b"], "the old connection still counts"
    await fixture.send(joined("users", since=4) + change("users", 4, 5, "v") + synced_event(5), stream=1)
    assert [stream.node for stream in fixture.open] == [B]
    assert (orders.lost, users.lost) == ([], [])
    assert (users.updates[-1].since, ids(users.updates[-1])) == (4, ["v"])
    assert fixture.acknowledgements[-1] == (5, ["orders", "users"])


async def test_a_service_that_may_not_join_gets_a_watch_of_its_own_and_disturbs_no_other(fixture: PoolFixture) -> None:
    orders, _ = await fixture.start_both()
    fixture.net.answers = [INVISIBLE_REPLY, INVISIBLE_REPLY]  # The first is for both, then each is tried by itself.
    fixture.net.invisible.add("secret")
    secret, stock = fixture.follow("secret"), fixture.follow("stock")
    await run_until_idle()
    assert [join for _, join, _ in fixture.joins] == [["secret", "stock"], ["secret"], ["stock"]]
    await fixture.send(joined("stock") + full_state("stock", "s") + synced_event(5))
    assert [ids(update) for update in stock.updates] == [["s"]]
    assert secret.updates == []
    assert "you may not see it" in secret.lost[0]
    assert orders.lost == []
    assert [stream.services for stream in fixture.net.streams] == [["orders", "users"], ["secret"]]
    fixture.net.invisible.clear()
    await fixture.clock.advance(MAX_CONNECT_PAUSE)
    await fixture.send(opened(watch="w2") + full_state("secret", "x") + synced_event(5), stream=1)
    assert [ids(update) for update in secret.updates] == [["x"]]


async def test_a_service_that_is_refused_in_the_first_request_does_not_keep_the_others_waiting(
    fixture: PoolFixture,
) -> None:
    fixture.net.invisible.add("secret")
    secret, orders, users = (fixture.follow(service) for service in ("secret", "orders", "users"))
    await run_until_idle()
    await fixture.clock.advance(0.0)
    assert [stream.services for stream in fixture.open] == [["orders"]]
    await fixture.send(opened() + full_state("orders", "a") + synced_event(5))
    assert [join for _, join, _ in fixture.joins] == [["users"]]
    await fixture.send(joined("users") + full_state("users", "u") + synced_event(5))
    assert [ids(update) for update in (*orders.updates[:1], *users.updates)] == [["a"], ["u"]]
    assert (orders.lost, users.lost) == ([], [])
    assert "you may not see it" in secret.lost[0]


async def test_a_join_that_another_node_answers_leads_to_a_watch_of_its_own(fixture: PoolFixture) -> None:
    orders, _ = await fixture.start_both()
    fixture.net.answers = [UNKNOWN_WATCH]
    carts = fixture.follow("carts")
    await run_until_idle()
    assert [stream.services for stream in fixture.open] == [["orders", "users"], ["carts"]]
    await fixture.send(opened(watch="w2") + full_state("carts", "c") + synced_event(5), stream=1)
    assert [ids(update) for update in carts.updates] == [["c"]]
    assert (carts.lost, orders.lost) == ([], [])


async def test_a_join_that_fails_is_sent_again_and_the_consumer_learns_why_it_waits(fixture: PoolFixture) -> None:
    orders, _ = await fixture.start_both()
    fixture.net.answers = [DECLINED]
    carts = fixture.follow("carts")
    await run_until_idle()
    assert carts.lost == [f"{A}: not now"]
    await fixture.clock.advance(MAX_RETRY_PAUSE)
    assert [join for _, join, _ in fixture.joins] == [["carts"], ["carts"]]
    assert fixture.net.fresh[-2:] == [False, True], "an idle connection may be cut off"
    await fixture.send(joined("carts") + full_state("carts", "c") + synced_event(5))
    assert [ids(update) for update in carts.updates] == [["c"]]
    assert orders.lost == []


async def test_a_node_that_does_not_answer_a_join_delays_the_service_by_half_a_second(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    fixture.net.hanging.add(A)
    carts = fixture.follow("carts")
    await fixture.clock.advance(HEDGE_DELAY + MAX_FIRST_RETRY_DELAY + 0.01)
    assert [stream.node for stream in fixture.open] == [A, B], "the old connection stays"
    await fixture.send(opened(full=False, watch="w2") + synced_event(5), stream=1)
    await fixture.send(joined("carts") + full_state("carts", "c") + synced_event(5), stream=1)
    assert [stream.node for stream in fixture.open] == [B]
    assert [ids(update) for update in carts.updates] == [["c"]]
    assert (orders.lost, users.lost, carts.lost) == ([], [], [])


async def test_services_of_a_connection_that_works_are_not_lost_when_another_one_can_not_be_opened(
    fixture: PoolFixture,
) -> None:
    orders, users = await fixture.start_both()
    fixture.net.hanging.add(A)
    fixture.net.refusing.add(B)
    carts = fixture.follow("carts")
    for _ in range(16):
        await fixture.send(synced_event(5))
        await fixture.clock.advance(0.5)
    assert (orders.lost, users.lost) == ([], [])
    assert any("connection refused" in reason for reason in carts.lost)
    assert len(orders.updates) > 10


async def test_a_join_that_fails_several_times_leads_to_a_watch_of_its_own(fixture: PoolFixture) -> None:
    await fixture.start_both()
    fixture.net.answers = [DECLINED] * MAX_JOIN_ATTEMPTS
    fixture.follow("carts")
    await run_until_idle()
    for _ in range(MAX_JOIN_ATTEMPTS):
        await fixture.clock.advance(MAX_RETRY_PAUSE)
        await fixture.send(synced_event(5))
    assert [stream.services for stream in fixture.open][:2] == [["orders", "users"], ["carts"]]


async def test_at_a_node_that_takes_no_joins_each_service_has_a_watch_of_its_own(fixture: PoolFixture) -> None:
    orders, users = fixture.follow("orders"), fixture.follow("users")
    await run_until_idle()
    await fixture.send(opened(joins=False) + full_state("orders", "a") + full_state("users", "u") + synced_event(5))
    assert [stream.services for stream in fixture.open] == [["orders"], ["users"]]
    for number, (service, id) in enumerate((("orders", "a"), ("users", "u"))):
        await fixture.send(
            opened(joins=False, watch=f"w{number}") + full_state(service, id) + synced_event(5), stream=number
        )
    assert [ids(update) for update in (*orders.updates, *users.updates)] == [["a"], ["u"]]
    assert (orders.lost, users.lost) == ([], [])
    assert fixture.acknowledgements == [(5, []), (5, [])], "such a node acknowledges whole watches"
    carts = fixture.follow("carts")
    await run_until_idle()
    assert fixture.open[2].services == ["carts"]
    assert fixture.joins == []
    await carts.close()


async def test_services_share_a_watch_again_when_their_node_takes_joins(fixture: PoolFixture) -> None:
    orders, users = fixture.follow("orders"), fixture.follow("users")
    await run_until_idle()
    await fixture.send(opened(joins=False) + synced_event(5))
    for number in range(2):
        await fixture.send(opened(joins=False, watch=f"w{number}") + synced_event(5), stream=number)
    for stream in fixture.open:
        stream.send(None)
    await run_until_idle()
    await fixture.clock.advance(MAX_FIRST_RETRY_DELAY)
    assert len(fixture.open) == 2
    for number in range(2):
        await fixture.send(opened(full=False, watch=f"x{number}") + synced_event(5), stream=number)
    assert len(fixture.open) == 1
    (first,), (second,) = fixture.open[0].services, [join for _, joins, _ in fixture.joins for join in joins]
    assert {first, second} == {"orders", "users"}
    await fixture.send(joined(second, since=5) + synced_event(6))
    assert [follower.updates[-1].position.revision for follower in (orders, users)] == [6, 6]


async def test_a_service_is_followed_anew_under_its_new_consumer(fixture: PoolFixture) -> None:
    _, users = await fixture.start_both()
    await users.close()
    assert fixture.consumer is not None
    fixture.consumer = fixture.consumer.successor()
    fixture.follow("users")
    await run_until_idle()
    body = wire.decode(fixture.net.bodies[-1] or b"", wire.WatchServicesBody)
    assert body.leave == ["users"] or len(fixture.joins) == 2
    (joining,) = body.join
    assert joining.consumer == fixture.consumer.id
    assert joining.consumer != fixture.net.streams[0].params["consumer"]


async def test_an_observer_acknowledges_no_service(fixture: PoolFixture) -> None:
    fixture.consumer = None
    await fixture.start_both()
    carts = fixture.follow("carts")
    await run_until_idle()
    await fixture.send(joined("carts") + synced_event(6))
    assert len(carts.updates) == 1
    assert fixture.acknowledgements == []
    assert fixture.net.streams[0].params.keys() == {"service"}


async def test_a_new_epoch_reaches_a_slow_consumer_in_order(fixture: PoolFixture) -> None:
    orders, users = await fixture.start_both()
    orders.reads.clear()
    await fixture.send(change("orders", 5, 6, "b") + synced_event(6))
    await fixture.send(change("orders", 6, 7, "c") + synced_event(7))
    begun = sse_event("open", wire.WatchOpened("e2", 1, True, "w1", heartbeat=3.0, joins=True))
    await fixture.send(begun + full_state("orders", "x", revision=1) + synced_event(1, "e2"))
    orders.reads.set()
    await run_until_idle()
    positions = [update.position for update in orders.updates]
    assert positions == [("e1", 5), ("e1", 6), ("e1", 7), ("e2", 1)]
    assert users.updates[-1].position == ("e2", 1)
