"""Clients converge in any order of publications, answers and lost streams, and can always route."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.dialects.xds.streams import delta, sotw
from adsum.dialects.xds.streams.session import DEPENDENCY_TIMEOUT, StreamSession
from adsum.dialects.xds.subscribers import GatewaySubscribers
from adsum.gateway.resources.resources import ResourceKind
from tests.dialects.xds.fakes import CDS, EDS, LDS, RDS, FakeXdsClient, ReceivedResponse, content, resources

SERVICES = "abcd"
MAX_EXCHANGES = 200
"""Exchanges after which a test fails, since they seem to be endless."""


class EnvoyLikeClient(FakeXdsClient):
    """A client that subscribes as Envoy does, and checks after each response that its routes lead to warm clusters."""

    def __init__(self, variant: ModuleType, session: StreamSession) -> None:
        super().__init__(variant, session)
        self.unanswered: list[ResourceKind] = []
        self.has_rejected = False
        """True once it has rejected something: from then on it may lack what routes name."""
        self.before: dict[ResourceKind, dict[str, str]] = {}
        self.names[EDS] = []

    def start(self) -> None:
        for kind in (CDS, LDS):
            self.request(kind)
        self.request(RDS, "main")

    def take(self) -> ReceivedResponse | None:
        """Applies one response without answering it."""
        before = {kind: dict(table) for kind, table in self.resources.items()}
        response = self.receive()
        if response is not None:
            self.unanswered.append(response.kind)
            self.before[response.kind] = before.get(response.kind, {})
            self.check()
        return response

    def check(self) -> None:
        """Checks that every cluster that its routes name exists, with an assignment."""
        if self.has_rejected or RDS not in self.resources or not self.resources[RDS]:
            return
        named = routed(self.resources[RDS]["main"])
        assert named <= set(self.resources.get(CDS, {})), "a route names a missing cluster"
        assert named <= set(self.resources.get(EDS, {})), "a route names a cluster that is not warm"

    def answer(self, error: str = "") -> None:
        """Answers the oldest unanswered response; Envoy subscribes to new clusters before that."""
        if not self.unanswered:
            return
        kind = self.unanswered.pop(0)
        if error:
            self.has_rejected = True
            self.resources[kind] = self.before[kind]
        elif kind is CDS:
            self.subscribe()
        self.ack(kind, error)

    def subscribe(self) -> None:
        """Subscribes to the assignments of exactly the clusters that it has."""
        wanted, have = set(self.resources[CDS]), set(self.names[EDS])
        if wanted == have:
            return
        if self.is_delta:
            self.request(EDS, *sorted(wanted - have), resource_names_unsubscribe=sorted(have - wanted))
        else:
            self.request(EDS, *sorted(wanted), nonce=self.nonces.get(EDS, ""))
        self.names[EDS] = sorted(wanted)
        self.resources[EDS] = {name: content for name, content in self.resources.get(EDS, {}).items() if name in wanted}

    def exchange_all(self) -> None:
        """Exchanges responses and answers until there are none."""
        for _ in range(MAX_EXCHANGES):
            if self.take() is None and not self.unanswered:
                return
            self.answer()
        raise AssertionError("the exchanges don't end")


def contents(
    services: frozenset[str], endpoints: int, cluster: int, listener: int = 1
) -> dict[ResourceKind, dict[str, int]]:
    """Returns the contents of a catalog with these services and a route to each."""
    return {
        CDS: dict.fromkeys(services, cluster),
        EDS: dict.fromkeys(services, endpoints),
        LDS: {"main": listener},
        RDS: {"main": sum(1 << SERVICES.index(name) for name in services)},
    }


ROUTED = {
    content(resources({RDS: {"main": bits}})[RDS]["main"]): {name for n, name in enumerate(SERVICES) if bits & (1 << n)}
    for bits in range(1 << len(SERVICES))
}


def routed(routes: str) -> set[str]:
    """Returns the services that these routes name."""
    return ROUTED[routes]


CHOSEN = st.frozensets(st.sampled_from(SERVICES))
Step = tuple[str, dict[ResourceKind, dict[str, int]], frozenset[str]]
PUBLICATIONS = st.tuples(st.just("publish"), st.builds(contents, CHOSEN, st.integers(1, 3), st.integers(1, 2)), CHOSEN)
OTHERS: list[Step] = [(name, {}, frozenset()) for name in ("take", "take", "answer", "reject", "lose", "stale")]
STEPS = st.lists(st.one_of(PUBLICATIONS, *map(st.just, OTHERS)), max_size=40)


@pytest.mark.parametrize("variant", [delta, sotw], ids=["delta", "sotw"])
@given(steps=STEPS, last=CHOSEN, last_unrouted=CHOSEN)
@settings(max_examples=150)
def test_a_client_converges_and_its_routes_always_lead_to_warm_clusters(
    variant: ModuleType, steps: list[Step], last: frozenset[str], last_unrouted: frozenset[str]
) -> None:
    subscribers = GatewaySubscribers()
    client = EnvoyLikeClient(variant, StreamSession(variant, subscribers))
    client.start()
    number = 0
    for step, published, unrouted in steps:
        if step == "publish":
            number += 1
            subscribers.publish(resources(published), number, number, unrouted)
        elif step == "take":
            client.take()
        elif step == "answer":
            client.answer()
        elif step == "reject":
            client.answer("no")
        elif step == "stale":
            client.request(EDS, *([] if client.is_delta else client.names[EDS]), nonce="of-old", error="lies")
        else:
            client.session.close()
            client = EnvoyLikeClient(variant, StreamSession(variant, subscribers))
            client.start()
    final = contents(last, 7, 7, 7)
    subscribers.publish(resources(final), number + 1, number + 1, last_unrouted)
    client.exchange_all()
    assert client.session.is_current
    expected = {
        kind: {name: content(resource) for name, resource in table.items()} for kind, table in resources(final).items()
    }
    assert {kind: client.resources.get(kind, {}) for kind in (CDS, LDS, EDS)} == {
        kind: expected[kind] for kind in (CDS, LDS, EDS)
    }
    if not client.has_rejected:
        assert client.resources[RDS] == expected[RDS]


@given(
    before=st.frozensets(st.sampled_from(SERVICES)),
    after=st.frozensets(st.sampled_from(SERVICES)),
    endpoints=st.integers(1, 2),
)
def test_a_client_that_reconnects_gets_only_the_difference(
    before: frozenset[str], after: frozenset[str], endpoints: int
) -> None:
    old, new = resources(contents(before, 1, 1)), resources(contents(after, endpoints, 1))
    subscribers = GatewaySubscribers()
    subscribers.publish(new, 1, 1)
    client = FakeXdsClient(delta, StreamSession(delta, subscribers))
    for kind, names in ((CDS, ()), (EDS, sorted(before)), (LDS, ()), (RDS, ("main",))):
        client.request(
            kind, *names, initial_resource_versions={name: resource.version for name, resource in old[kind].items()}
        )
    received = {kind: set[str]() for kind in ResourceKind}
    for client.now in (0.0, DEPENDENCY_TIMEOUT):  # It never subscribes to the assignments of new clusters.
        for response in client.settle():
            received[response.kind] |= {*response.resources, *response.removed}
    for kind in (CDS, LDS, RDS):
        assert received[kind] == {
            name
            for name in {*old[kind], *new[kind]}
            if name not in old[kind] or name not in new[kind] or old[kind][name].version != new[kind][name].version
        }
    kept = {name for name in before if name in after and old[EDS][name].version == new[EDS][name].version}
    assert received[EDS] == before - kept
