"""Access control of xDS: who may connect, what each client sees, and when its streams end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection

import pytest

from adsum.access.sessions import RIGHTS_CHANGED
from adsum.core.access.scopes import ALL_NAMES, EVERYTHING, NO_SCOPES, NamePatterns, intern_patterns
from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Batch, FullState
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.model import Instance, Key, Listing, Override, Registration, Status
from adsum.core.provenance import Cause, Provenance
from adsum.dialects.xds import publisher, subscribers
from adsum.dialects.xds.publisher import SETTLING_TIME, Publisher
from adsum.dialects.xds.streams import call_access
from adsum.dialects.xds.streams.ack_delay import ACK_DELAY
from adsum.dialects.xds.streams.call_access import call_credentials
from adsum.dialects.xds.streams.errors import StreamRefused
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.upstreams import LbPolicy, Upstream
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.gateway.resources.resources import ResourceKind
from adsum.wire.tokens import encode_token
from tests.dialects.xds.fakes import CDS, EDS, LDS, RDS, ReceivedResponse
from tests.dialects.xds.streams.streams_world import ADS, CALLER, FakeStreamCall, StreamsWorld
from tests.support.fakes import FakeStore, run_until_idle
from tests.support.tokens import make_token, revoke_token

METHODS = (
    f"{ADS}/DeltaAggregatedResources",
    f"{ADS}/StreamAggregatedResources",
    "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats",
    "/envoy.service.metrics.v3.MetricsService/StreamMetrics",
)
ENDED = f"UNAUTHENTICATED: {RIGHTS_CHANGED}"
PROVENANCE = Provenance(Cause.REGISTERED, "tester")


@pytest.fixture
async def world() -> AsyncIterator[StreamsWorld]:
    """A registry in which callers that prove nothing may do nothing, with orders and users."""
    found = StreamsWorld(NO_SCOPES, NO_RESOURCES)
    await found.registry.start()
    await found.xds.start()
    for service in ("orders", "users"):
        await found.register("a", service)
    yield found
    await _stop(found)


async def _stop(world: StreamsWorld) -> None:
    for call in world.calls:
        await call.close()
    await world.xds.stop()
    await world.access.stop()
    await world.registry.stop()


async def _joined(world: StreamsWorld, token: str, node: str = "gw1") -> FakeStreamCall:
    """Returns the call of a gateway that has all clusters and assignments, and has acknowledged them."""
    call = world.call(token)
    await call.request(CDS, node=node)
    names = list(call.received[-1].resources)
    await call.ack()
    if names:
        await call.request(EDS, *names)
        await call.ack()
    await asyncio.sleep(2 * ACK_DELAY)
    return call


def _clusters(call: FakeStreamCall) -> set[str]:
    """Returns the clusters in the first response."""
    return set(call.received[0].resources)


async def _drained(world: StreamsWorld, service: str) -> int:
    """Drains an instance. Returns how many consumers are waited for."""
    override = Override(Status.DRAINING, "tester")
    revision = await world.write(decisions.set_override(Key(service, "a"), override, "", CALLER))
    return await world.unacknowledged(service, revision, 0.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["none", "wrong", "malformed", "other scheme", "expired", "revoked"])
async def test_a_caller_that_proves_nothing_gets_nothing(world: StreamsWorld, method: str, kind: str) -> None:
    await world.declare("ci", "read:*", expires=world.clock.wall() - 1.0 if kind == "expired" else None)
    token = {"none": "", "wrong": make_token("other")[1], "malformed": "adsum_?"}.get(kind, make_token("ci")[1])
    if kind == "revoked":
        await revoke_token(world.registry, "ci")
        await world.settle()
    call = world.call(token, method)
    if kind == "other scheme":
        call.metadata = {"authorization": "Basic YTpi"}
    await call.request(CDS, node="gw1")
    assert call.ended.startswith("UNAUTHENTICATED: ")
    assert call.received == []
    assert len(world.refused) == 1
    assert world.refused[0][0].startswith("xds_")
    (client,) = world.xds.streams.refusals.recent()
    assert (client.code, client.peer) == ("UNAUTHENTICATED", call.peer)
    assert len(world.xds.streams) == 0
    assert make_token("ci")[1] not in client.reason


@pytest.mark.parametrize("method", METHODS)
async def test_a_caller_that_may_read_no_service_is_denied(world: StreamsWorld, method: str) -> None:
    call = world.call(await world.declare("useless"), method)
    await call.request(CDS, node="gw1")
    assert call.ended.startswith("PERMISSION_DENIED: useless may not do this")
    assert world.refused == [(world.refused[0][0], "forbidden")]
    assert world.xds.streams.refusals.count == {"PERMISSION_DENIED": 1}


async def test_wrong_secrets_of_one_address_are_answered_later_and_later(world: StreamsWorld) -> None:
    for _ in range(20):
        world.call(make_token("nobody")[1])
        await run_until_idle()
    assert not world.calls[-1].ended
    await world.clock.advance(20.0)
    assert all(call.ended for call in world.calls)


async def test_delayed_refusals_are_bounded(world: StreamsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_access, "MAX_DELAYED_REFUSALS", 2)
    for _ in range(20):
        world.call(make_token("nobody")[1])
        await run_until_idle()
    waiting = [call for call in world.calls if not call.ended]
    assert len(waiting) == 2
    await world.clock.advance(20.0)
    assert all(call.ended for call in world.calls)


async def test_a_gateway_gets_only_the_services_that_it_may_read(world: StreamsWorld) -> None:
    limited = await _joined(world, await world.declare("limited", "read:orders"))
    whole = await _joined(world, await world.declare("whole", "read:*"), "gw2")
    assert _clusters(limited) == {"orders"}
    assert _clusters(whole) == {"orders", "users"}
    before = len(limited.received)
    await world.register("bb", "users")
    await world.register("c", "billing")
    assert len(limited.received) == before, "nothing that it sees has changed"
    await world.register("bb", "orders")
    assert [(response.kind, set(response.resources)) for response in limited.received[before:]] == [(EDS, {"orders"})]


async def test_gateways_with_equal_scopes_and_profiles_get_the_same_bytes(world: StreamsWorld) -> None:
    one = await _joined(world, await world.declare("one", "read:orders"))
    two = await _joined(world, await world.declare("two", "write:orders", "read:orders"), "gw2")
    streams = world.xds.streams
    assert streams.gateway_subscribers("gw1", "one") is streams.gateway_subscribers("gw2", "two")
    await world.register("bb", "orders")
    assert one.received[-1] == two.received[-1]


async def _grpc_resources(
    world: StreamsWorld, token: str, service: str, kinds: Collection[ResourceKind] = (CDS, EDS, LDS, RDS)
) -> list[ReceivedResponse]:
    call = world.call(token)
    for kind in kinds:
        await call.request(kind, service, node="client", agent="grpc")
        await call.ack()
    return call.received


async def test_an_invisible_service_is_to_a_grpc_client_as_one_that_does_not_exist(world: StreamsWorld) -> None:
    limited, whole = await world.declare("limited", "read:orders"), await world.declare("whole", "read:*")
    hidden = await _grpc_resources(world, limited, "users")
    unknown = await _grpc_resources(world, whole, "nobody")
    known = await _grpc_resources(world, whole, "users")

    def contents(responses: list[ReceivedResponse], name: str) -> list[tuple[ResourceKind, list[bytes], list[str]]]:
        return [
            (item.kind, [value.replace(name.encode(), b"NAME") for value in item.resources.values()], item.removed)
            for item in responses
        ]

    def normalized(responses: list[ReceivedResponse], name: str) -> list[tuple[ResourceKind, int, int]]:
        return [(kind, len(values), len(removed)) for kind, values, removed in contents(responses, name)]

    assert normalized(hidden, "users") == normalized(unknown, "nobody")
    same_length = await _grpc_resources(world, whole, "usert")
    assert contents(hidden, "users") == contents(same_length, "usert"), "all bytes but the name"
    assert contents(hidden, "users") != contents(known, "users")


async def test_a_grpc_client_learns_nothing_of_changes_of_an_invisible_service(world: StreamsWorld) -> None:
    call = world.call(await world.declare("limited", "read:orders"))
    await call.request(EDS, "users", "orders", node="client", agent="grpc")
    await call.ack()
    before = len(call.received)
    await world.register("bb", "users")
    assert len(call.received) == before
    await world.register("bb", "orders")
    assert [set(response.resources) for response in call.received[before:]] == [{"orders"}]


async def test_a_service_that_only_a_client_without_rights_asks_for_may_be_forgotten(world: StreamsWorld) -> None:
    limited, whole = await world.declare("limited", "read:orders"), await world.declare("whole", "read:*")
    await _grpc_resources(world, limited, "users")
    await _grpc_resources(world, limited, "orders")
    assert not world.xds.has_grpc_subscriber("users")
    assert world.xds.has_grpc_subscriber("orders")
    await _grpc_resources(world, whole, "users")
    assert world.xds.has_grpc_subscriber("users")


@pytest.mark.parametrize("method", METHODS)
async def test_a_revoked_token_ends_its_calls(world: StreamsWorld, method: str) -> None:
    call = world.call(await world.declare("ci", "read:*"), method)
    other = world.call(await world.declare("other", "read:*"), method)
    await run_until_idle()
    world.access.start()
    await revoke_token(world.registry, "ci")
    await run_until_idle()
    assert call.ended == ENDED
    assert other.ended == ""
    assert world.xds.streams.refusals.count == {"UNAUTHENTICATED": 1}


async def test_a_caller_whose_token_is_revoked_gets_nothing_of_the_snapshot_that_revokes_it(
    world: StreamsWorld,
) -> None:
    call = await _joined(world, await world.declare("ci", "read:*"))
    before = len(call.received)
    await asyncio.gather(revoke_token(world.registry, "ci"), world.register("bb", "orders"))
    await world.register("ccc", "orders")
    assert call.received[before:] == []
    assert call.ended == ENDED


async def test_an_expired_token_ends_its_calls(world: StreamsWorld) -> None:
    call = await _joined(world, await world.declare("ci", "read:*", expires=world.clock.wall() + 60.0))
    world.access.sessions.expire(world.clock.wall() + 59.0)
    assert call.ended == ""
    world.access.sessions.expire(world.clock.wall() + 60.0)
    assert call.ended == ENDED


async def test_after_a_change_of_scopes_a_gateway_connects_anew_and_gets_what_it_may_read_then(
    world: StreamsWorld,
) -> None:
    await world.clock.advance(SETTLING_TIME + 2.0)
    token = await world.declare("gateway", "read:*")
    call = await _joined(world, token)
    await world.declare("gateway", "read:users")
    assert call.ended == ENDED
    again = world.call(token)
    await again.request(CDS, node="gw1", initial_resource_versions=dict.fromkeys(("orders", "users"), "v"))
    await again.ack()
    await again.request(EDS, "users")
    await again.ack()
    removed = [name for response in again.received for name in response.removed]
    assert _clusters(again) == {"users"}
    assert removed == ["orders"]


async def test_a_drain_waits_for_no_client_that_may_not_read_the_service(world: StreamsWorld) -> None:
    call = await _joined(world, await world.declare("limited", "read:orders"))
    assert await _drained(world, "users") == 0
    assert await _drained(world, "orders") == 1
    await call.ack()
    await asyncio.sleep(2 * ACK_DELAY)
    assert await world.unacknowledged("orders", world.registry.snapshot.revision, 0.0) == 0


async def test_a_drain_waits_for_a_gateway_that_was_cut_off_with_its_rights_until_it_is_lost(
    world: StreamsWorld,
) -> None:
    await _joined(world, await world.declare("limited", "read:orders"))
    await revoke_token(world.registry, "limited")
    await world.settle()
    assert await _drained(world, "users") == 0
    assert await _drained(world, "orders") == 1, "its Envoy goes on with what it has"
    world.clock.jump(world.registry.watches.consumers.lost_after)
    assert await world.unacknowledged("orders", world.registry.snapshot.revision, 0.0) == 0


async def test_scopes_of_anonymous_callers_hold_for_streams_that_open_before_the_catalog_is_loaded() -> None:
    record, _ = make_token("anonymous", "read:orders")
    document = Document(DocumentKey(DocumentKind.TOKEN, "anonymous"), encode_token(record), PROVENANCE)
    listings = [Listing(Registration(Instance(name, "a", "127.0.0.1", 80)), PROVENANCE) for name in ("orders", "users")]
    store = LoadedStore(FullState("e", 1, [(1, listing) for listing in listings], [(1, document)]))
    world = StreamsWorld(EVERYTHING, NO_RESOURCES, store)
    early = world.call()
    await early.request(CDS, node="gw1")
    await world.xds.start()
    await run_until_idle()
    assert early.received == []
    await world.registry.start()
    await world.settle()
    assert _clusters(early) == {"orders"}
    await _stop(world)


class LoadedStore(FakeStore):
    """A store that has a state already."""

    def __init__(self, state: FullState) -> None:
        super().__init__()
        self._state = state

    async def open(self) -> None:
        self.stream.put_nowait(self._state)


async def test_an_open_registry_asks_nobody_for_a_token() -> None:
    world = StreamsWorld(EVERYTHING, NO_RESOURCES)
    await world.registry.start()
    await world.xds.start()
    await world.register("a")
    call = world.call()
    await call.request(CDS, node="gw1")
    assert _clusters(call) == {"orders"}
    assert world.refused == []
    await _stop(world)


async def test_different_scopes_of_gateways_are_bounded(world: StreamsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MAX_GATEWAY_SETS", 2)
    tokens = [await world.declare(f"t{n}", f"read:orders-{n}", "read:orders") for n in range(3)]
    calls = [world.call(token) for token in (*tokens, tokens[0], await world.declare("whole", "read:*"))]
    for number, call in enumerate(calls):
        await call.request(CDS, node=f"gw{number}")
    assert [call.ended.partition(":")[0] for call in calls] == ["", "", "RESOURCE_EXHAUSTED", "", ""]
    await calls[1].close()
    late = world.call(tokens[2])
    await late.request(CDS, node="late")
    assert _clusters(late) == {"orders"}, "a set that no gateway has any more leaves its place"


async def test_different_scopes_of_grpc_clients_are_bounded(
    world: StreamsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MAX_GRPC_SETS", 1)
    calls = [world.call(await world.declare(f"t{n}", f"read:orders-{n}")) for n in range(2)]
    for call in calls:
        await call.request(EDS, "orders", node="client", agent="grpc")
    assert [call.ended.partition(":")[0] for call in calls] == ["", "RESOURCE_EXHAUSTED"]


async def test_a_gateway_with_new_scopes_that_joins_while_others_are_compiled_gets_its_resources(
    world: StreamsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, limited = await world.declare("whole", "read:*"), await world.declare("limited", "read:orders")
    await _joined(world, token)
    gate, loop, advance = threading.Event(), threading.get_ident(), NO_RESOURCES.__class__.advance

    def gated(self: object, *source: object) -> object:
        assert threading.get_ident() == loop or gate.wait(20.0)
        return advance(self, *source)  # type: ignore[arg-type]

    monkeypatch.setattr(NO_RESOURCES.__class__, "advance", gated)
    monkeypatch.setattr(publisher, "MAX_INLINE_COMPILATION", 0)
    await world.register("bb", "orders")
    late = world.call(limited)
    await late.request(CDS, node="late")
    assert late.received == []
    gate.set()
    async with asyncio.timeout(20.0):
        while not late.received:  # noqa: ASYNC110 - what is waited for is made in a thread
            await asyncio.sleep(0.005)
    assert _clusters(late) == {"orders"}


def _set(*patterns: str) -> NamePatterns:
    return intern_patterns(frozenset(patterns))


def test_an_upstream_of_an_invisible_service_shows_in_no_resource() -> None:
    hashed = Intent((), {"users": Upstream("users", LbPolicy.RING_HASH)})
    published = Publisher(NO_RESOURCES, lambda _: hashed)
    limited, whole = published.grpc_subscribers(_set("orders")), published.grpc_subscribers(ALL_NAMES)
    published.publish(_snapshot(), {}, 0.0)
    hidden, known = limited.find(CDS, "users"), whole.find(CDS, "users")
    other = Publisher(NO_RESOURCES, lambda _: NO_INTENT)
    other.publish(EMPTY_SNAPSHOT, {}, 0.0)
    unknown = other.grpc_subscribers().find(CDS, "users")
    assert hidden is not None
    assert known is not None
    assert hidden.delta != known.delta
    assert unknown is not None
    assert hidden.delta == unknown.delta
    assert limited.find(CDS, "users") is hidden, "the bytes are shared"
    assert published.grpc_subscribers(_set("billing")).find(CDS, "users") is hidden


def test_a_new_group_of_grpc_clients_has_what_was_published_last() -> None:
    published = Publisher(NO_RESOURCES, lambda _: NO_INTENT)
    published.grpc_subscribers()
    published.publish(_snapshot(), {}, 0.0)
    late = published.grpc_subscribers(_set("orders"))
    assert (late.publication, late.revision) == (published.publication, published.revision)
    assert late.find(EDS, "orders") is published.grpc_subscribers().find(EDS, "orders"), "compiled once for all sets"


def test_the_resources_of_grpc_clients_with_different_scopes_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscribers, "MAX_GRPC_RESOURCES", 2)
    published = Publisher(NO_RESOURCES, lambda _: NO_INTENT)
    one, two = published.grpc_subscribers(_set("orders")), published.grpc_subscribers(_set("users"))
    session = IdleSubscriber()
    one.subscribe(session, EDS, ["a", "b"])
    with pytest.raises(StreamRefused, match="too many names"):
        two.subscribe(session, EDS, ["a"])
    two.unsubscribe(session, EDS, ["a"])
    one.unsubscribe(session, EDS, ["a"])
    two.subscribe(session, EDS, ["c"])


class IdleSubscriber:
    """A session that ignores changes."""

    def notify(self, *_: object) -> None:
        pass


def _snapshot() -> Snapshot:
    """Returns a catalog with orders and users."""
    snapshot = EMPTY_SNAPSHOT
    for service in ("orders", "users"):
        changes = decisions.register(Registration(Instance(service, "a", "127.0.0.1", 80)), CALLER)(snapshot)
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, changes))
    return snapshot


@pytest.mark.parametrize(
    ("authorization", "token"),
    [("", ""), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", "-"), ("Bearer", "-"), ("Bearer ", "-")],
)
async def test_credentials_of_another_scheme_are_wrong_and_not_none(authorization: str, token: str) -> None:
    async def serve(_: object) -> None:
        pass

    call = FakeStreamCall(serve)
    call.metadata = {"authorization": authorization} if authorization else {}
    call.peer, call.certificate = "[2001:db8::1]:443", b"der"
    assert call_credentials(call) == (token, b"der", "2001:db8::1")
    await call.close()
