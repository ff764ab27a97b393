"""The streams of a registry: statuses, acknowledgements, refusals and slow clients."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from adsum.core.catalog import decisions
from adsum.core.catalog.changes import FullState
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Key, Override, Status
from adsum.dialects.xds import host_names, publisher
from adsum.dialects.xds.publisher import SETTLING_TIME
from adsum.dialects.xds.streams.ack_delay import ACK_DELAY
from adsum.dialects.xds.streams.request import MAX_NAME_LENGTH
from adsum.dialects.xds.streams.request_rate import REQUEST_BURST, REQUESTS_PER_SECOND, RequestRate
from adsum.dialects.xds.streams.streams import STALL_TIMEOUT
from adsum.dialects.xds.telemetry.client_status import DEPARTED_RETENTION
from adsum.dialects.xds.telemetry.refusals import (
    LOG_INTERVAL,
    MAX_LINES_PER_INTERVAL,
    MAX_REFUSED_CLIENTS,
    REFUSAL_RETENTION,
    RefusalLog,
)
from adsum.gateway.profile import HEALTH_PROBE_AGENT
from tests.dialects.xds.fakes import CDS, EDS, LDS, FakeCompiled
from tests.dialects.xds.streams.streams_world import CALLER, FakeStreamCall, StreamsWorld
from tests.support.fakes import FakeClock, run_until_idle

WAIT_TIMEOUT = 30.0
LONG_NAME = f"a name or version may have at most {MAX_NAME_LENGTH} characters"


def _drain(service: str, id: str) -> decisions.Decision:
    return decisions.set_override(Key(service, id), Override(Status.DRAINING, "tester"), "", CALLER)


@pytest.fixture
async def world() -> AsyncIterator[StreamsWorld]:
    found = StreamsWorld()
    await found.xds.start()
    yield found
    for call in found.calls:
        await call.close()
    await found.xds.stop()
    await found.registry.stop()


async def test_a_stream_is_not_answered_before_the_catalog_is_loaded(world: StreamsWorld) -> None:
    call = world.call()
    await call.request(CDS, node="gw1")
    assert call.received == []
    await world.registry.start()
    await run_until_idle()
    assert [response.kind for response in call.received] == [CDS]


async def test_nothing_is_compiled_without_clients_and_a_new_client_gets_the_newest(
    world: StreamsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    advance = FakeCompiled.advance

    def counted(self: FakeCompiled, snapshot: Snapshot, *more: Any) -> FakeCompiled:
        compiled.append(snapshot.revision)
        return advance(self, snapshot, *more)

    monkeypatch.setattr(FakeCompiled, "advance", counted)
    await world.registry.start()
    await run_until_idle()
    for id in ("a", "bb"):
        await world.register(id)
    assert compiled == [0]
    call = world.call()
    await call.connect()
    assert compiled == [0, 2]
    assert call.received[-1].resources["orders"].count(b"127.0.0.1") == 2
    await world.register("ccc")
    assert compiled == [0, 2, 3]
    await call.close()
    await world.register("dddd")
    assert compiled == [0, 2, 3]


async def test_a_drain_waits_for_every_gateways_ack_and_the_ack_delay(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    call = world.call()
    await call.connect()
    revision = await world.register("bb")
    assert call.received[-1].kind is EDS
    waiting = asyncio.create_task(world.unacknowledged("orders", revision, WAIT_TIMEOUT))
    await asyncio.sleep(2 * ACK_DELAY)
    assert not waiting.done()
    began = time.monotonic()
    await call.ack()
    assert await waiting == 0
    assert time.monotonic() - began >= ACK_DELAY * 0.9
    assert world.acknowledged() == {"gw1": revision}


async def _joined_and_acknowledged(world: StreamsWorld, node: str = "gw1") -> FakeStreamCall:
    call = world.call()
    await call.connect(node)
    await asyncio.sleep(2 * ACK_DELAY)
    return call


async def test_a_drain_waits_for_a_gateway_without_a_stream_until_it_is_lost(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    call = await _joined_and_acknowledged(world)
    await call.close()
    revision = await world.register("bb")
    assert await world.unacknowledged("orders", revision, 0.0) == 1
    world.clock.jump(world.registry.watches.consumers.lost_after)
    state = await world.registry.watches.consumers.wait_for_acknowledgements("orders", revision, 0.0)
    assert [pending.consumer.name for pending in state.lost] == ["gw1"]
    assert state.waiting == []


async def test_an_observer_delays_no_drain(world: StreamsWorld) -> None:
    await world.registry.start()
    call = world.call()
    await call.request(CDS, node=HEALTH_PROBE_AGENT, agent=HEALTH_PROBE_AGENT)
    assert call.received, "it is answered"
    revision = await world.register("a")
    assert await world.unacknowledged("orders", revision, 0.0) == 0
    await call.close()
    world.clock.jump(world.registry.watches.consumers.lost_after)
    state = await world.registry.watches.consumers.wait_for_acknowledgements("orders", revision, 0.0)
    assert (state.waiting, state.lost) == ([], [])


@pytest.mark.parametrize("is_refused", [False, True], ids=["closed", "refused"])
async def test_a_gateway_that_was_silent_for_long_is_lost_when_its_stream_ends(
    world: StreamsWorld, is_refused: bool
) -> None:
    await world.registry.start()
    await world.register("a")
    call = await _joined_and_acknowledged(world)
    revision = await world.register("bb")
    world.clock.jump(world.registry.watches.consumers.lost_after)
    assert await world.unacknowledged("orders", revision, 0.0) == 1, "its stream is open"
    if is_refused:
        call.send_bytes(b"\xff")
        await run_until_idle()
        assert call.ended.startswith("INVALID_ARGUMENT"), "a request that can't be parsed is no sign of life"
    await call.close()
    state = await world.registry.watches.consumers.wait_for_acknowledgements("orders", revision, 0.0)
    assert [pending.consumer.name for pending in state.lost] == ["gw1"]
    assert state.waiting == []


async def test_a_drain_waits_for_a_gateway_whose_stream_was_cut(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    slow = await _joined_and_acknowledged(world)
    slow.can_write.clear()
    revision = await world.register("bb")
    await world.clock.advance(STALL_TIMEOUT + 2.0)
    assert slow.ended == "cut: responses were not read"
    await slow.close()
    assert await world.unacknowledged("orders", revision, 0.0) == 1


async def test_a_gateway_that_reconnects_takes_the_place_of_the_one_that_left(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    await (await _joined_and_acknowledged(world)).close()
    revision = await world.register("bb")
    back = await _joined_and_acknowledged(world)
    assert await world.unacknowledged("orders", revision, 0.0) == 0
    assert world.registry.watches.consumers.departed_count == 0
    await back.close()


async def test_two_programs_with_one_node_id_acknowledge_separately(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    old, new = await _joined_and_acknowledged(world), await _joined_and_acknowledged(world)
    revision = await world.register("bb")
    await new.ack()
    await asyncio.sleep(2 * ACK_DELAY)
    assert await world.unacknowledged("orders", revision, 0.0) == 1
    await old.close()
    assert await world.unacknowledged("orders", revision, 0.0) == 1, "it keeps its configuration until it ends"
    await new.close()


async def test_no_drain_waits_for_a_gateway_that_gets_no_response_for_the_change(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    call = world.call()
    await call.request(EDS, "orders", node="gw1")
    await call.ack()
    await asyncio.sleep(2 * ACK_DELAY)
    world.clock.jump(1.0)
    revision = await world.register("x", "users")
    assert await world.unacknowledged("users", revision, 0.0) == 0


async def test_a_gateway_that_rejects_endpoints_does_not_route_by_them(world: StreamsWorld) -> None:
    await world.registry.start()
    await world.register("a")
    call = world.call()
    await call.connect()
    revision = await world.register("bb")
    await call.ack(error="not like this")
    await asyncio.sleep(2 * ACK_DELAY)
    assert world.acknowledged()["gw1"] < revision
    assert await world.unacknowledged("orders", revision, 0.0) == 1
    assert world.xds.streams.statuses()[0].rejections == {"assignments": "not like this"}


async def test_each_rejection_is_counted_and_each_different_one_logged(
    world: StreamsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await world.registry.start()
    calls = [world.call() for _ in range(3)]
    with caplog.at_level(logging.WARNING, "adsum.xds"):
        for n, call in enumerate(calls):
            await call.request(LDS, node=f"gw{n}")
            await call.ack(error="port taken")
    assert [record.getMessage() for record in caplog.records] == [
        "gw0 rejects its listeners, and keeps those that it had: port taken"
    ]
    assert world.xds.streams.rejections.count == {"listeners": 3}
    assert world.xds.streams.count_by_program() == {"envoy": 3}


async def test_a_gateway_without_a_stream_is_shown_until_it_reconnects(world: StreamsWorld) -> None:
    def departed() -> list[tuple[str, float, int]]:
        return [(status.node, away, status.revision) for away, status in world.xds.streams.departed_gateways()]

    await world.registry.start()
    await world.register("a")
    one, other = world.call(), world.call()
    for call in (one, other):
        await call.connect()
    await asyncio.sleep(2 * ACK_DELAY)
    await one.close()
    assert departed() == [], "the Envoy that replaces it has a stream"
    await other.close()
    world.clock.jump(5.0)
    assert departed() == [("gw1", 5.0, 1)]
    again = world.call()
    await again.connect()
    assert departed() == []
    await again.close()
    world.clock.jump(DEPARTED_RETENTION + 1.0)
    assert departed() == []


async def test_a_refused_stream_is_logged_counted_shown_and_forgotten_after_a_while(
    world: StreamsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await world.registry.start()
    with caplog.at_level(logging.WARNING, "adsum.xds"):
        for _ in range(3):
            call = world.call()
            await call.connect()
            await call.request(EDS, "x" * (MAX_NAME_LENGTH + 1))
            assert call.ended == f"INVALID_ARGUMENT: {LONG_NAME}"
    assert [record.getMessage() for record in caplog.records] == [f"the stream of gw1 is refused: {LONG_NAME}"]
    refusals = world.xds.streams.refusals
    assert refusals.count == {"INVALID_ARGUMENT": 3}
    assert [(client.node, client.peer, client.count, client.reason) for client in refusals.recent()] == [
        ("gw1", FakeStreamCall.peer, 3, LONG_NAME)
    ]
    assert world.acknowledged() == {}, "the client has left"
    await world.clock.advance(REFUSAL_RETENTION + 1.0)
    assert refusals.recent() == []


async def test_a_stream_that_is_refused_at_its_first_request_is_shown_with_its_node(world: StreamsWorld) -> None:
    await world.registry.start()
    call = world.call()
    request = DeltaDiscoveryRequest(type_url=CDS.value)
    request.node.id, request.node.user_agent_name = "stranger", "envoy"
    call.send(request)
    await run_until_idle()
    assert [(client.node, client.code) for client in world.xds.streams.refusals.recent()] == [
        ("stranger", "INVALID_ARGUMENT")
    ]


def test_refusals_of_many_clients_are_bounded_in_the_log_and_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    refusals = RefusalLog(clock)
    with caplog.at_level(logging.WARNING, "adsum.xds"):
        for n in range(10 * MAX_REFUSED_CLIENTS):
            refusals.add(f"gw{n}", "192.0.2.1:1", "INVALID_ARGUMENT", "no")
        assert len(caplog.records) == MAX_LINES_PER_INTERVAL
        assert [client.node for client in refusals.recent()][:1] == [f"gw{10 * MAX_REFUSED_CLIENTS - 1}"]
        assert len(refusals.recent()) == MAX_REFUSED_CLIENTS
        clock.jump(LOG_INTERVAL)
        refusals.add(f"gw{10 * MAX_REFUSED_CLIENTS - 1}", "192.0.2.1:2", "INVALID_ARGUMENT", "no")
    assert caplog.records[-1].getMessage().endswith("is refused (2 times so far): no")
    assert refusals.count == {"INVALID_ARGUMENT": 10 * MAX_REFUSED_CLIENTS + 1}


async def test_a_gateway_that_does_not_read_skips_versions_and_is_cut_after_the_timeout(
    world: StreamsWorld,
) -> None:
    await world.registry.start()
    await world.register("a")
    slow, other = world.call(), world.call()
    await slow.connect("slow")
    await other.connect("other")
    before = len(slow.received)
    slow.can_write.clear()
    for id in ("bb", "ccc", "dddd"):
        await world.register(id)
        await other.ack()
    assert len(slow.received) == before
    slow.can_write.set()
    await run_until_idle()
    await slow.ack()
    await slow.ack()
    assert len(slow.received) == before + 2, "the response that it did not read, and then all changes in one"
    slow.can_write.clear()
    await world.register("eeeee")
    await world.clock.advance(STALL_TIMEOUT + 2.0)
    assert slow.ended == "cut: responses were not read"
    assert other.ended == ""
    assert world.xds.streams.shed == 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Compiles everything in a thread, which waits while the event is cleared."""
    gate, loop = threading.Event(), threading.get_ident()
    gate.set()
    advance = FakeCompiled.advance

    def gated(self: FakeCompiled, *source: Any) -> FakeCompiled:
        assert threading.get_ident() == loop or gate.wait(WAIT_TIMEOUT)
        return advance(self, *source)

    monkeypatch.setattr(FakeCompiled, "advance", gated)
    monkeypatch.setattr(FakeCompiled, "is_compiled", lambda *_: False)
    monkeypatch.setattr(publisher, "MAX_INLINE_COMPILATION", 0)
    yield gate
    gate.set()


async def _until(is_true: Callable[[], bool]) -> None:
    """Returns when `is_true` returns true."""
    async with asyncio.timeout(WAIT_TIMEOUT):
        while not is_true():  # noqa: ASYNC110 - what is waited for is made in a thread
            await asyncio.sleep(0.005)


async def test_a_slow_compilation_blocks_nothing_and_is_pushed_when_it_is_done(
    world: StreamsWorld, gate: threading.Event
) -> None:
    await world.registry.start()
    first = await world.register("a")
    call = world.call()
    await call.connect()
    await _until(lambda: bool(call.received))
    await call.ack()
    await call.request(EDS, "orders")
    await call.ack()
    await _until(lambda: world.acknowledged() == {"gw1": first})
    gate.clear()
    before = len(call.received)
    await world.register("bb")
    last = await world.register("ccc")
    late = world.call()
    await late.request(CDS, node="gw2")
    assert len(call.received) == before
    assert await world.unacknowledged("orders", last, 0.0) == 2, "neither has acknowledged what was not sent yet"
    gate.set()
    await _until(lambda: len(call.received) == before + 1)
    await call.ack()
    await _until(lambda: len(call.received) == before + 2)
    await call.ack()
    await _until(lambda: world.acknowledged().get("gw1") == last)
    assert call.received[-1].kind is EDS


async def test_the_first_gateway_with_a_profile_gets_the_newest_and_nothing_before(
    world: StreamsWorld, gate: threading.Event
) -> None:
    await world.registry.start()
    await world.register("a")
    await world.register("bb", "users")
    gate.clear()
    call = world.call()
    await call.request(CDS, node="gw1")
    assert call.received == []
    gate.set()
    await _until(lambda: bool(call.received))
    assert set(call.received[0].resources) == {"orders", "users"}


async def test_clients_keep_what_they_have_when_a_snapshot_can_not_be_compiled(
    world: StreamsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await world.registry.start()
    await world.register("a")
    call = world.call()
    await call.connect()
    before, acknowledged = len(call.received), world.acknowledged()
    world.is_failing = True
    with caplog.at_level(logging.ERROR, "adsum.xds"):
        revision = await world.register("bb")
        await world.register("ccc")
    assert len(caplog.records) == 1, "logged once"
    assert len(call.received) == before
    assert world.acknowledged() == acknowledged
    assert await world.unacknowledged("orders", revision, 0.0) == 1
    other = world.call()
    await other.request(CDS, node="gw2", listen="127.0.0.1:8081")
    assert set(other.received[0].resources) == {"orders"}, "a new client gets what the others have"
    world.is_failing = False
    await world.register("dddd")
    assert call.received[-1].kind is EDS


async def test_what_is_not_registered_again_is_removed_after_the_settling_time(world: StreamsWorld) -> None:
    await world.registry.start()
    call = world.call()
    await call.request(CDS, node="gw1", initial_resource_versions={"orders": "v"})
    await call.request(EDS, "orders", initial_resource_versions={"orders": "v"})
    assert call.received == []
    await world.clock.advance(SETTLING_TIME + 2.0)
    for _ in range(3):
        await call.ack()
    assert [(response.kind, list(response.resources), response.removed) for response in call.received] == [
        (CDS, [], []),
        (EDS, ["orders"], []),
        (CDS, [], ["orders"]),
    ]


async def test_clients_keep_instances_until_an_empty_epoch_has_settled_except_those_that_leave(
    world: StreamsWorld,
) -> None:
    await world.registry.start()
    for id in ("a", "bb"):
        await world.register(id)
        await world.register(id, "users")
    call = world.call()
    await call.connect()
    await call.request(EDS, "users")
    await call.ack()
    before = len(call.received)
    world.store.replace_history(FullState("e2", 0, []))
    await world.register("a")
    await world.register("a", "users")
    assert call.received[before:] == []
    await world.write(_drain("users", "a"))
    assert [(response.kind, list(response.resources)) for response in call.received[before:]] == [(EDS, ["users"])]
    await call.ack()
    await world.clock.advance(SETTLING_TIME + 2.0)
    assert list(call.received[-1].resources) == ["orders"]


async def test_an_instance_is_pushed_when_its_host_name_is_resolved(
    world: StreamsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = asyncio.Event()

    async def look_up(name: str) -> list[str]:
        await may_answer.wait()
        return ["192.0.2.7"]

    monkeypatch.setattr(host_names, "look_up", look_up)
    await world.registry.start()
    await world.register("a", address="orders.example")
    call = world.call()
    await call.connect()
    before = len(call.received)
    may_answer.set()
    await run_until_idle()
    assert [response.kind for response in call.received[before:]] == [EDS]


def test_a_stream_may_send_a_burst_and_then_at_the_rate() -> None:
    rate = RequestRate()
    assert all(rate.delay(100.0) == 0.0 for _ in range(REQUEST_BURST))
    assert rate.delay(100.0) == pytest.approx(1 / REQUESTS_PER_SECOND)
    assert rate.delay(110.0) == 0.0
