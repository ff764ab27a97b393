"""The publisher: groups of clients with different visible services come and go, and get exactly what they may see."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.core.access.scopes import ALL_NAMES, NamePatterns, intern_patterns
from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.xds.publisher import Publisher
from adsum.dialects.xds.subscribers import GatewaySubscribers, GrpcSubscribers
from adsum.gateway.intent.intent import Intent
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.gateway.resources.resources import ResourceKind
from adsum.gateway.resources.visible_resources import VisibleResources
from tests.gateway import strategies
from tests.support import strategies as common

PROFILE = GatewayProfile(("127.0.0.1:8080",))
ADDRESSES: Mapping[str, str] = {}
NAMES = ("s1", "s2", "orders", "unknown")
SETS = (
    ALL_NAMES,
    *(intern_patterns(frozenset(patterns)) for patterns in (("s1",), ("s*",), ("orders", "s2"), ("users",))),
)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), common.simple_changes),
        st.tuples(st.just("intent"), strategies.intents()),
        st.tuples(st.sampled_from(["join", "leave", "join-grpc"]), st.sampled_from(SETS)),
        st.tuples(st.just("publish"), st.none()),
    ),
    max_size=25,
)


class IdleSubscriber:
    """A session that ignores changes."""

    def notify(self, *_: object) -> None:
        pass


class PublisherWorld:
    """A publisher, and the groups that have clients."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = snapshots.EMPTY_SNAPSHOT
        self.intent = Intent()
        self.publisher = Publisher(NO_RESOURCES, lambda _: self.intent)
        self.gateways: dict[NamePatterns, GatewaySubscribers] = {}
        self.grpc: dict[NamePatterns, GrpcSubscribers] = {}
        self.session = IdleSubscriber()

    def run(self, step: str, value: object) -> None:
        if isinstance(value, Change):
            self.snapshot = self.snapshot.apply(Batch(self.snapshot.revision + 1, [value]))
        elif isinstance(value, Intent):
            # A change of documents is a revision of its own.
            self.snapshot = self.snapshot.apply(Batch(self.snapshot.revision + 1, []))
            self.intent = value
        elif isinstance(value, NamePatterns):
            self._run_client(step, value)
        else:
            self.publisher.publish(self.snapshot, ADDRESSES, 0.0)

    def _run_client(self, step: str, visible: NamePatterns) -> None:
        if step == "join" and visible not in self.gateways:
            self.gateways[visible] = self.publisher.gateway_subscribers(PROFILE, visible)
        elif step == "join-grpc" and visible not in self.grpc:
            self.grpc[visible] = group = self.publisher.grpc_subscribers(visible)
            for kind in ResourceKind:
                group.subscribe(self.session, kind, NAMES)
        elif step == "leave" and visible in self.gateways:
            self.publisher.leave(self.gateways.pop(visible))

    def check(self) -> None:
        """Compares each group with resources that are compiled from scratch."""
        whole = NO_RESOURCES.advance(self.snapshot, self.intent, ADDRESSES)
        for visible, gateways in self.gateways.items():
            part = VisibleResources.create(visible, NO_RESOURCES).advance(self.snapshot, self.intent, ADDRESSES)
            expected = (whole if visible.is_all else part.compiled).gateway_resources(PROFILE)
            for kind in ResourceKind:
                assert set(gateways.names(kind)) == set(expected[kind])
                for name, resource in expected[kind].items():
                    found = gateways.find(kind, name)
                    assert found is not None
                    assert found.delta == resource.delta
        for visible, group in self.grpc.items():
            for kind in ResourceKind:
                for name in NAMES:
                    source = whole if visible.includes(name) else NO_RESOURCES
                    wanted, got = source.grpc_resource(kind, name), group.find(kind, name)
                    assert (got and got.delta) == (wanted and wanted.delta)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_every_group_gets_exactly_what_it_may_see(history: list[tuple[str, object]]) -> None:
    world = PublisherWorld()
    for step, value in history:
        world.run(step, value)
    world.run("publish", None)
    world.check()


@given(steps)
@settings(max_examples=30, deadline=None)
def test_a_publication_that_was_prepared_is_the_same(history: list[tuple[str, object]]) -> None:
    world = PublisherWorld()
    for step, value in history:
        world.run(step, value)
        world.publisher.prepare(world.snapshot, ADDRESSES)
    world.run("publish", None)
    world.run("publish", None)  # A set that came after the preparation is compiled next.
    world.check()


def test_gateways_that_see_everything_get_the_same_objects_as_before() -> None:
    world = PublisherWorld()
    world.run("join", ALL_NAMES)
    world.run("join", SETS[1])
    world.run("publish", None)
    before = world.gateways[ALL_NAMES].find(ResourceKind.ROUTES, "routes")
    world.publisher.publish(world.snapshot, ADDRESSES, 0.0)
    assert world.gateways[ALL_NAMES].find(ResourceKind.ROUTES, "routes") is before


def test_a_set_without_gateways_is_compiled_no_more() -> None:
    world = PublisherWorld()
    for visible in SETS:
        world.run("join", visible)
    world.run("publish", None)
    assert world.publisher.is_expensive(world.snapshot) is False
    for visible in SETS:
        world.run("leave", visible)
    assert not world.publisher.has_subscribers
    assert not world.publisher.has_new_groups
