from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from random import Random

import pytest

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import AnswerLost, AnswerOverdue, RegistryRefused, RegistryUnavailable
from adsum.client.native.api import GOODBYE_TIMEOUT, RegistryApi
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.request_sender import WAIT_ANSWER_MARGIN
from adsum.client.native.transport import TransportReply
from adsum.client.sources.registry import RegistrySource
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.clock import SystemClock
from adsum.core.errors import Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Status
from tests.client.fakes import FakeTransport
from tests.client.stub_node import (
    STREAM_HEAD,
    StubNode,
    http_reply,
    hung_node,
    sse_event,
    stub_node,
    synced_event,
    until,
)
from tests.support.fakes import FakeClock

DEAD = "http://127.0.0.1:9"
"""The URL of a node that does not run."""
OPEN = sse_event("open", wire.WatchOpened("e1", 5, True, "w1"))
RESUMED = sse_event("open", wire.WatchOpened("e1", 7, False, "w2"))
SERVICE = sse_event(
    "service", wire.ServiceView("e1", "orders", 5, [wire.InstanceView("a", "10.0.0.1", 80, Status.PASSING)])
)


class ShortestPause(Random):
    """Draws the shortest pause."""

    def uniform(self, a: float, b: float) -> float:
        return a


@pytest.fixture
async def node() -> AsyncIterator[StubNode]:
    async with stub_node() as node:
        yield node


class KnownPosition:
    """The position of the latest update that a consumer received."""

    def __init__(self) -> None:
        self.now: ViewPosition | None = None


async def receive(
    source: RegistrySource, count: int, position: KnownPosition | None = None
) -> list[ServiceUpdate | ConnectionLost]:
    """Returns the first `count` events of a watch of orders."""
    position = position or KnownPosition()
    events: list[ServiceUpdate | ConnectionLost] = []
    async with aclosing(source.watch("orders", lambda: position.now)) as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, ServiceUpdate):
                position.now = event.position
            if len(events) == count:
                break
    return events


def source_of(*urls: str) -> RegistrySource:
    """Returns a source that tries the nodes in this order."""
    source = RegistrySource(
        urls, actor="tester", consumer=ConsumerIdentity("test"), clock=SystemClock(), rng=ShortestPause(1)
    )
    source.api.nodes._urls = list(urls)
    return source


async def test_a_watch_that_breaks_is_resumed_from_where_it_was(node: StubNode) -> None:
    node.watch_answers = [
        (STREAM_HEAD + OPEN + SERVICE + synced_event(5), False),
        (STREAM_HEAD + RESUMED + synced_event(7), True),
    ]
    source = source_of(node.url)
    first, lost, second = await receive(source, 3)
    assert isinstance(first, ServiceUpdate)
    assert first.full
    assert isinstance(lost, ConnectionLost)
    assert "ended the watch" in lost.reason
    assert isinstance(second, ServiceUpdate)
    assert (second.full, second.since, second.position) == (False, 5, ("e1", 7))
    first_request, second_request = [request for request in node.requests if request.startswith("GET")]
    assert re.fullmatch(r"GET /api/v1/watch\?service=orders&acks=true&consumer=[0-9a-f]{32}&name=test", first_request)
    assert second_request == f"{first_request} since e1:5"
    await source.close()


async def test_an_incomplete_update_is_never_shown(node: StubNode) -> None:
    node.watch_answers = [(STREAM_HEAD + OPEN + SERVICE, False), (STREAM_HEAD + OPEN + synced_event(6), True)]
    source = source_of(node.url)
    lost, update = await receive(source, 2)
    assert isinstance(lost, ConnectionLost)
    assert isinstance(update, ServiceUpdate)
    assert update.changed == {}
    await source.close()


@pytest.mark.parametrize(
    "content",
    [
        STREAM_HEAD + b"event: open\ndata: {]\n\n",
        STREAM_HEAD + synced_event(5),
        http_reply(404, b"not here"),
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
async def test_a_node_with_another_protocol_is_reported_as_lost_with_a_reason(node: StubNode, content: bytes) -> None:
    node.watch_answers = [(content, False)]
    source = source_of(node.url)
    (lost,) = await receive(source, 1)
    assert isinstance(lost, ConnectionLost)
    assert lost.reason.startswith(f"{node.url}: ")
    assert len(lost.reason) > len(node.url) + 5
    await source.close()


async def test_a_watch_switches_to_the_next_node_and_stays_there(node: StubNode) -> None:
    node.watch_answers = [
        (STREAM_HEAD + OPEN + SERVICE + synced_event(5), False),
        (STREAM_HEAD + RESUMED + synced_event(7), True),
    ]
    async with stub_node() as other:
        other.watch_answers = [(STREAM_HEAD + OPEN + synced_event(5), False)]
        source = source_of(DEAD, node.url, other.url)
        update, lost, again, _ = await receive(source, 4)
        assert isinstance(update, ServiceUpdate), "a node that refuses causes no pause"
        assert isinstance(lost, ConnectionLost)
        assert isinstance(again, ServiceUpdate)
        assert "e1:5" in other.requests[0]
        await source.close()


async def test_an_update_is_acknowledged_when_the_next_one_is_requested(node: StubNode) -> None:
    node.watch_answers = [(STREAM_HEAD + OPEN + SERVICE + synced_event(5), True)]
    source = source_of(node.url)
    async with aclosing(source.watch("orders", lambda: None)) as events:
        await anext(events)
        node.answer = http_reply(200, wire.encode(wire.WriteResult("e1", 8, 15.0)))
        await source.deregister("orders", "z", "", "")  # Everything sent earlier has arrived by now.
        assert [request.partition("?")[0] for request in node.requests] == [
            "GET /api/v1/watch",
            "DELETE /api/v1/services/orders/instances/z",
        ]
        node.answer = http_reply(204, b"")
        requested = asyncio.ensure_future(anext(events))
        await until(lambda: wire.encode(wire.AcknowledgementBody(5)) in node.bodies)
        requested.cancel()
        await asyncio.gather(requested, return_exceptions=True)
    assert set(node.requests[2:]) == {"POST /api/v1/watches/w1/acknowledge"}
    await source.close()


async def test_closing_a_watch_closes_its_connection(node: StubNode) -> None:
    node.watch_answers = [(STREAM_HEAD + OPEN + SERVICE + synced_event(5), True)]
    source = source_of(node.url)
    await receive(source, 1)
    await until(lambda: not node.open)
    await source.close()


async def test_a_request_goes_to_the_next_node_when_one_fails(node: StubNode) -> None:
    node.answer = http_reply(200, wire.encode(wire.WriteResult("e1", 3, 15.0)))
    async with stub_node() as failing:
        failing.answer = http_reply(503, wire.encode(wire.Problem("Unavailable", 503, "the store is away")))
        source = source_of(DEAD, failing.url, node.url)
        assert (await source.deregister("orders", "a", "because", "h")).revision == 3
        assert source.api.nodes.current(0.0) == node.url
        assert node.requests == ["DELETE /api/v1/services/orders/instances/a?reason=because&holder=h"]
        source.api.nodes._urls = [DEAD, failing.url]
        with pytest.raises(RegistryUnavailable, match="the store is away"):
            await source.deregister("orders", "a", "", "")
        await source.close()


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (wire.Problem("Conflict", 409, "a live process has it"), RegistrationConflict),
        (wire.Problem("Unprocessable", 422, "must be a port", field="port"), Invalid),
        (wire.Problem("Insufficient Storage", 507, "the catalog is full"), RegistryRefused),
    ],
)
async def test_a_refusal_raises_the_error_that_it_states(
    node: StubNode, problem: wire.Problem, error: type[Exception]
) -> None:
    node.answer = http_reply(problem.status, wire.encode(problem))
    source = source_of(node.url)
    with pytest.raises(error):
        await source.register("orders", "a", wire.RegistrationBody(80))
    await source.close()


@pytest.mark.parametrize(
    ("problem", "error"),
    [(wire.Problem("Not Found", 404, "no"), UnknownInstance), (wire.Problem("Conflict", 409, "no"), LeaseLost)],
)
async def test_a_lease_of_another_holder_is_reported_as_lost(
    node: StubNode, problem: wire.Problem, error: type[Exception]
) -> None:
    node.answer = http_reply(problem.status, wire.encode(problem))
    source = source_of(node.url)
    with pytest.raises(error):
        await source.override("orders", "a", wire.OverrideBody("draining", holder="h"))
    await source.close()


async def test_an_undecodable_answer_is_an_error(node: StubNode) -> None:
    for body in (b"", b"<html>", b'{"epoch": 7}'):
        node.answer = http_reply(200, body)
        source = source_of(node.url)
        with pytest.raises(RegistryUnavailable, match="the answer can't be decoded"):
            await source.register("orders", "a", wire.RegistrationBody(80))
        await source.close()


async def test_a_hung_node_delays_reads_and_idempotent_writes_by_half_a_second(node: StubNode) -> None:
    node.answer = http_reply(200, wire.encode(wire.WriteResult("e1", 3, 15.0)))
    async with hung_node() as hung:
        calls: list[Callable[[RegistryApi], Awaitable[wire.WriteResult]]] = [
            lambda api: api.register("orders", "a", wire.RegistrationBody(80)),
            lambda api: api.deregister("orders", "a", holder="h"),
            lambda api: api.override("orders", "a", wire.OverrideBody("draining", wait=5.0)),
            lambda api: api.override("orders", "a", wire.OverrideBody("maintenance")),
            lambda api: api.remove_route("shop"),
        ]
        for call in calls:
            source = source_of(hung, node.url)
            async with asyncio.timeout(HEDGE_DELAY + 2.0):
                assert (await call(source.api)).revision == 3
            assert source.api.nodes.order(source._clock.now()) == [node.url, hung]
            await source.close()


async def test_a_lease_of_the_shortest_ttl_does_not_lapse_because_a_node_hangs() -> None:
    clock, net = FakeClock(), FakeTransport()
    net.answer = TransportReply(200, {}, wire.encode(wire.RenewalResult("e1", 3, 1)))
    net.hanging.add("http://a:1")
    api = RegistryApi(["http://a:1", "http://b:1"], clock=clock, rng=Random(1))
    api.transport = net  # type: ignore[assignment]
    api.nodes._urls = ["http://a:1", "http://b:1"]
    renewing = asyncio.create_task(api.renew([wire.LeaseBody("orders", "a")], timeout=0.5))
    await clock.advance(0.26)
    assert renewing.done()
    assert (await renewing).renewed == 1


async def test_a_write_that_must_not_arrive_twice_reaches_one_node_only(node: StubNode) -> None:
    node.answer = http_reply(200, wire.encode(wire.WriteResult("e1", 3)))
    async with stub_node() as slow:
        slow.answer, slow.delay = node.answer, HEDGE_DELAY + 0.2
        source = source_of(slow.url, node.url)
        await source.api.put_route("shop", wire.RouteBody())
        assert [slow.requests, node.requests] == [["GET /healthz", "PUT /api/v1/routes/shop"], []]
        await source.close()


async def test_a_late_answer_to_a_drain_is_overdue_and_not_unavailable(node: StubNode) -> None:
    async with hung_node() as hung:
        source = source_of(hung)
        began = source._clock.now()
        with pytest.raises(AnswerOverdue, match="not known who confirmed"):
            await source.override("orders", "a", wire.OverrideBody("draining", wait=0.2))
        assert source._clock.now() - began < 0.2 + WAIT_ANSWER_MARGIN + 0.5
        await source.close()


async def test_a_node_that_stops_during_the_wait_has_written_and_one_that_declines_has_not(
    node: StubNode,
) -> None:
    for field, error in (("wait", AnswerLost), ("", RegistryUnavailable)):
        node.answer = http_reply(503, wire.encode(wire.Problem("", 503, "not now", field=field)))
        source = source_of(node.url)
        with pytest.raises(error, match="not now"):
            await source.override("orders", "a", wire.OverrideBody("draining", wait=0.2))
        await source.close()


async def test_the_time_to_find_a_node_is_subtracted_from_the_wait(node: StubNode) -> None:
    node.answer = http_reply(200, wire.encode(wire.WriteResult("e1", 3)))
    for urls, least, most in (((node.url,), 5.0, 5.0), ((DEAD, node.url), 4.0, 5.0)):
        source = source_of(*urls)
        await source.override("orders", "a", wire.OverrideBody("draining", wait=5.0))
        sent = wire.decode(node.bodies[-1], wire.OverrideBody)
        assert isinstance(sent.wait, float)
        assert least <= sent.wait <= most
        await source.close()
    async with hung_node() as hung:
        source = source_of(hung, node.url)
        await source.override("orders", "a", wire.OverrideBody("draining", wait=5.0))
        assert wire.decode(node.bodies[-1], wire.OverrideBody).wait <= 5.0 - HEDGE_DELAY
        await source.close()


async def test_a_consumer_sends_its_goodbye_to_every_node_within_a_bounded_time(node: StubNode) -> None:
    async with hung_node() as hung, stub_node() as other:
        source = source_of(hung, node.url, DEAD, other.url)
        began = source._clock.now()
        await source.send_goodbye(["orders"])
        assert source._clock.now() - began < GOODBYE_TIMEOUT + 0.5
        for receiver in (node, other):
            (request,) = receiver.requests
            assert re.fullmatch(r"DELETE /api/v1/consumers/[0-9a-f]{32}\?service=orders", request)
        await source.close()


async def test_an_unknown_registry_host_is_an_error_for_the_local_address() -> None:
    source = source_of("http://no-such-host.invalid:1")
    with pytest.raises(RegistryUnavailable, match=r"no-such-host\.invalid"):
        await source.local_address()
    await source.close()
