from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from random import Random

import pytest

from adsum import wire
from adsum.client.errors import RegistryRefused, RegistryUnavailable
from adsum.client.ports import Group, Lost, Position
from adsum.client.sources.registry import LONGEST_PAUSE, RegistrySource
from adsum.clock import SystemClock
from adsum.core.errors import Invalid, LeaseLost, UnknownInstance
from adsum.core.model import Status
from tests.client.stub import HEAD, StubNode, reply, said, stub_node, synced, until

DEAD = "http://127.0.0.1:9"
"""Nobody listens there."""
OPEN = said("open", wire.Opened("e1", 5, True, "w1"))
RESUMED = said("open", wire.Opened("e1", 7, False, "w2"))
SERVICE = said("service", wire.ServiceView("e1", "orders", 5, [wire.InstanceView("a", "10.0.0.1", 80, Status.PASSING)]))


class Hasty(SystemClock):
    """Waits are remembered and not waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, length: float) -> None:
        self.waits.append(length)
        await asyncio.sleep(0)


@pytest.fixture
async def node() -> AsyncIterator[StubNode]:
    async with stub_node() as node:
        yield node


class Position_:
    """What a consumer knows: what it was told last."""

    def __init__(self) -> None:
        self.now: Position | None = None


async def hear(source: RegistrySource, count: int, known: Position_ | None = None) -> list[Group | Lost]:
    """The first `count` events of a watch of orders."""
    known = known or Position_()
    heard: list[Group | Lost] = []
    async with aclosing(source.watch("orders", lambda: known.now)) as events:
        async for event in events:
            heard.append(event)
            if isinstance(event, Group):
                known.now = event.position
            if len(heard) == count:
                break
    return heard


def source_of(*urls: str, clock: Hasty | None = None, stale_after: float = 30.0) -> RegistrySource:
    return RegistrySource(urls, actor="tester", clock=clock or Hasty(), rng=Random(1), stale_after=stale_after)


async def test_a_watch_that_breaks_is_resumed_from_where_it_was(node: StubNode) -> None:
    node.watches = [(HEAD + OPEN + SERVICE + synced(5), False), (HEAD + RESUMED + synced(7), True)]
    source = source_of(node.url)
    first, lost, second = await hear(source, 3)
    assert isinstance(first, Group)
    assert first.whole
    assert isinstance(lost, Lost)
    assert "ended the watch" in lost.why
    assert isinstance(second, Group)
    assert (second.whole, second.since, second.position) == (False, 5, ("e1", 7))
    watches = [request for request in node.requests if request.startswith("GET")]
    assert watches == [
        "GET /api/v1/watch?service=orders&acks=true",
        "GET /api/v1/watch?service=orders&acks=true since e1:5",
    ]
    await source.close()


async def test_half_a_group_is_never_shown(node: StubNode) -> None:
    node.watches = [(HEAD + OPEN + SERVICE, False), (HEAD + OPEN + synced(6), True)]
    source = source_of(node.url)
    lost, group = await hear(source, 2)
    assert isinstance(lost, Lost)
    assert isinstance(group, Group)
    assert group.changed == {}
    await source.close()


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"event: open\ndata: {]\n\n",
        HEAD + synced(5),
        reply(404, b"not here"),
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
async def test_whoever_does_not_speak_the_protocol_is_lost_with_a_word(node: StubNode, content: bytes) -> None:
    node.watches = [(content, False)]
    source = source_of(node.url)
    (lost,) = await hear(source, 1)
    assert isinstance(lost, Lost)
    assert lost.why.startswith(f"{node.url}: ")
    assert len(lost.why) > len(node.url) + 5
    await source.close()


async def test_a_connection_without_a_word_counts_as_dead(node: StubNode) -> None:
    node.watches = [(HEAD + OPEN + SERVICE + synced(5), True)]
    source = source_of(node.url, stale_after=0.05)
    group, lost = await hear(source, 2)
    assert isinstance(group, Group)
    assert isinstance(lost, Lost)
    assert "in time" in lost.why
    await source.close()


async def test_the_next_node_takes_over_and_is_stayed_with(node: StubNode) -> None:
    node.watches = [(HEAD + OPEN + SERVICE + synced(5), False), (HEAD + RESUMED + synced(7), True)]
    async with stub_node() as other:
        other.watches = [(HEAD + OPEN + synced(5), False)]
        clock = Hasty()
        source = source_of(node.url, other.url, DEAD, clock=clock)
        source.api.nodes._urls = [DEAD, node.url, other.url]
        lost, group, *_ = await hear(source, 4)
        assert isinstance(lost, Lost)
        assert isinstance(group, Group)
        assert "e1:5" in other.requests[0]
        assert all(0.0 <= wait <= LONGEST_PAUSE for wait in clock.waits)
        await source.close()


async def test_pauses_between_connections_are_of_any_length_up_to_a_bound() -> None:
    clock = Hasty()
    source = source_of(DEAD, clock=clock)
    await hear(source, 60)
    assert all(0.0 <= wait <= LONGEST_PAUSE for wait in clock.waits)
    assert min(clock.waits[10:]) < 1.0 < max(clock.waits)
    await source.close()


async def test_a_group_is_acknowledged_only_once_more_is_asked_for(node: StubNode) -> None:
    leaving = said("change", wire.ServiceChange("orders", 5, 6, [], [wire.Gone("a", "deregistered", "x")]))
    harmless = said(
        "change", wire.ServiceChange("orders", 6, 7, [wire.InstanceView("b", "10.0.0.2", 80, Status.PASSING)])
    )
    node.watches = [(HEAD + OPEN + SERVICE + synced(5) + leaving + synced(6) + harmless + synced(7) + synced(8), True)]
    source = source_of(node.url)
    async with aclosing(source.watch("orders", lambda: None)) as events:
        await anext(events)
        node.answer = reply(200, wire.encode(wire.Written("e1", 8, 15.0)))
        await source.deregister("orders", "z", "", "")  # What was sent before it has arrived before it.
        assert [each.partition("?")[0] for each in node.requests] == [
            "GET /api/v1/watch",
            "DELETE /api/v1/services/orders/instances/z",
        ]
        node.answer = reply(204, b"")
        for _ in range(3):
            await anext(events)
        await until(lambda: wire.encode(wire.AppliedBody(6)) in node.bodies)
    assert set(node.requests[2:]) == {"POST /api/v1/watches/w1/applied"}
    assert wire.encode(wire.AppliedBody(7)) not in node.bodies, "nobody waits for what harms no call"
    await source.close()


async def test_closing_a_watch_closes_its_connection(node: StubNode) -> None:
    node.watches = [(HEAD + OPEN + SERVICE + synced(5), True)]
    source = source_of(node.url)
    await hear(source, 1)
    await until(lambda: not node.open)
    await source.close()


async def test_a_request_goes_to_the_next_node_when_one_fails(node: StubNode) -> None:
    node.answer = reply(200, wire.encode(wire.Written("e1", 3, 15.0)))
    async with stub_node() as ill:
        ill.answer = reply(503, wire.encode(wire.Problem("Unavailable", 503, "the store is away")))
        source = source_of(DEAD, ill.url, node.url)
        source.api.nodes._urls = [DEAD, ill.url, node.url]
        assert (await source.deregister("orders", "a", "because", "h")).revision == 3
        assert source.api.nodes.current == node.url
        assert node.requests == ["DELETE /api/v1/services/orders/instances/a?reason=because&holder=h"]
        source.api.nodes._urls = [DEAD, ill.url]
        with pytest.raises(RegistryUnavailable, match="the store is away"):
            await source.deregister("orders", "a", "", "")
        await source.close()


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (wire.Problem("Not Found", 404, "no"), UnknownInstance),
        (wire.Problem("Conflict", 409, "no"), LeaseLost),
        (wire.Problem("Unprocessable", 422, "must be a port", field="port"), Invalid),
        (wire.Problem("Insufficient Storage", 507, "the catalog is full"), RegistryRefused),
    ],
)
async def test_what_the_registry_refuses_is_said_in_the_words_of_the_rules(
    node: StubNode, problem: wire.Problem, error: type[Exception]
) -> None:
    node.answer = reply(problem.status, wire.encode(problem))
    source = source_of(node.url)
    with pytest.raises(error):
        await source.register("orders", "a", wire.RegistrationBody(80))
    await source.close()


async def test_an_answer_that_is_none_is_an_error_and_no_crash(node: StubNode) -> None:
    for body in (b"", b"<html>", b'{"epoch": 7}'):
        node.answer = reply(200, body)
        source = source_of(node.url)
        with pytest.raises(RegistryUnavailable, match="an answer that is none"):
            await source.register("orders", "a", wire.RegistrationBody(80))
        await source.close()


async def test_a_host_that_nobody_knows_has_no_address_facing_it() -> None:
    source = source_of("http://no-such-host.invalid:1")
    with pytest.raises(RegistryUnavailable, match=r"no-such-host\.invalid"):
        await source.local_address()
    await source.close()
