"""Brief renewals of leases that other nodes keep, beside the way through the application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import pytest

from adsum import wire
from adsum.core.access.scopes import parse_scopes
from adsum.core.errors import KeeperUnavailable
from adsum.core.model import Key
from adsum.core.nodes.sharding import Peer
from adsum.dialects.native.brief.service_reads import EncodedReply
from adsum.dialects.native.ports import NoOtherNodes
from adsum.peers.peers import SettleLeases
from tests.dialects.native.native_api import JSON, NativeApi
from tests.support.fakes import FakeSharding

N2, N3 = Peer("n2", "second"), Peer("n3", "third")
HERE, THERE, FAR = ("orders", "o1"), ("users", "u1"), ("carts", "c1")
JSON_HEADERS = [(name.encode(), value.encode()) for name, value in JSON.items()]


class ScriptedNodes(NoOtherNodes):
    """Other nodes: `n2` keeps `users`, `n3` keeps `carts`. Renewals wait until the test answers them."""

    id = "n1"

    def __init__(self) -> None:
        self.service_keepers: dict[str, Sequence[Peer]] = {"users": [N2], "carts": [N3]}
        self.forwarded: list[tuple[str, Sequence[wire.LeaseBody]]] = []
        self.waiting: list[SettleLeases] = []
        self.lost: list[wire.LostLease] = []
        """The leases that are lost at each other node, for the way through the application."""
        self.error: KeeperUnavailable | None = None

    def keepers(self, service: str) -> Sequence[Peer]:
        return self.service_keepers.get(service, ())

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        if self.error is not None:
            raise self.error
        services = {lease.service for lease in leases}
        return [lost for lost in self.lost if lost.service in services]

    def submit_renewals(self, peer: Peer, leases: Sequence[wire.LeaseBody], settle: SettleLeases) -> None:
        self.forwarded.append((peer.id, leases))
        self.waiting.append(settle)

    def answer_all(self) -> None:
        """Answers all renewals that wait as the way through the application does."""
        waiting, self.waiting = self.waiting, []
        for (_, leases), settle in zip(self.forwarded, waiting, strict=True):
            services = {lease.service for lease in leases}
            settle(self.error or [lost for lost in self.lost if lost.service in services])


@pytest.fixture
def others() -> ScriptedNodes:
    return ScriptedNodes()


@pytest.fixture
async def api(others: ScriptedNodes) -> AsyncIterator[NativeApi]:
    """A node that keeps `orders`."""
    api = NativeApi(sharding=FakeSharding("orders"), peers=others)
    await api.registry.start()
    for service, id in (HERE, THERE, FAR):
        await api.register(service, id, ttl=10, holder="h")
    yield api
    await api.registry.stop()


def renewal(service: str, id: str, query: str = "") -> str:
    return f"/api/v1/services/{service}/instances/{id}/renew{query}"


def renew_body(*leases: tuple[str, str]) -> bytes:
    return json.dumps({"leases": [{"service": service, "id": id, "holder": "h"} for service, id in leases]}).encode()


def whole(reply: EncodedReply) -> tuple[int, dict[str, str], bytes]:
    """Returns status, headers and body."""
    head, _, body = reply.text.partition(b"\r\n\r\n")
    return reply.status, dict(line.split(": ", 1) for line in head.decode().split("\r\n")), body


@pytest.mark.parametrize("query", ["", "?holder=h"])
@pytest.mark.parametrize("reason", ["", "unknown", "superseded", "unavailable"])
async def test_a_forwarded_renewal_has_the_answer_of_the_application(
    api: NativeApi, others: ScriptedNodes, reason: str, query: str
) -> None:
    if reason == "unavailable":
        others.error = KeeperUnavailable("second can't be asked to renew what it keeps; another node may reach it")
    elif reason:
        others.lost = [wire.LostLease(*THERE, reason)]  # type: ignore[arg-type]
    replies = api.answers("POST", renewal(*THERE, query).encode())
    assert replies == [], "it waits"
    others.answer_all()
    expected = await api.request("POST", renewal(*THERE, query))
    assert [whole(reply) for reply in replies] == [(expected.status, expected.headers, expected.body)]
    assert others.forwarded == [("n2", [wire.LeaseBody(*THERE, "h" if query else "")])]
    assert api.observer.answers[-2:] == [("renew", expected.status)] * 2
    refusals = [refusal for refusal in api.observer.refusals if refusal[0] == "renew"]
    assert len(refusals) == (2 if reason else 0)


async def test_the_answer_states_the_revision_of_the_time_at_which_it_is_sent(
    api: NativeApi, others: ScriptedNodes
) -> None:
    replies = api.answers("POST", renewal(*THERE).encode())
    await api.register("orders", "o2", port=8001)
    others.answer_all()
    assert replies is not None
    assert json.loads(whole(replies[0])[2])["revision"] == api.registry.snapshot.revision


@pytest.mark.parametrize("reason", ["", "unknown", "unavailable"])
async def test_leases_of_several_nodes_have_one_answer_which_is_that_of_the_application(
    api: NativeApi, others: ScriptedNodes, reason: str
) -> None:
    if reason == "unavailable":
        others.error = KeeperUnavailable("third can't be asked")
    elif reason:
        others.lost = [wire.LostLease(*THERE, "unknown"), wire.LostLease(*FAR, "superseded")]
    body = renew_body(HERE, THERE, FAR, ("orders", "gone"))
    replies = api.answers("POST", b"/api/v1/renew", body, JSON_HEADERS)
    assert replies == []
    assert [node for node, _ in others.forwarded] == ["n2", "n3"]
    others.answer_all()
    expected = await api.request("POST", "/api/v1/renew", body, JSON)
    assert [whole(reply) for reply in replies] == [(expected.status, expected.headers, expected.body)]
    assert api.keeper.leases.deadline(Key(*HERE)) == api.clock.now() + 10, "it is renewed in any case"


async def test_one_node_that_does_not_answer_is_the_answer_though_others_do(
    api: NativeApi, others: ScriptedNodes
) -> None:
    replies = api.answers("POST", b"/api/v1/renew", renew_body(THERE, FAR), JSON_HEADERS)
    first, second = others.waiting
    first(KeeperUnavailable("second can't be asked"))
    assert replies == [], "the other one has not answered yet"
    second([])
    assert [reply.status for reply in replies or ()] == [503]


async def test_a_renewal_without_a_certain_keeper_is_left_to_the_application(
    api: NativeApi, others: ScriptedNodes
) -> None:
    for keepers in ([], [N2, N3]):
        others.service_keepers["users"] = keepers
        assert api.answers("POST", renewal(*THERE).encode()) is None
        assert api.answers("POST", b"/api/v1/renew", renew_body(HERE, THERE), JSON_HEADERS) is None
    assert others.forwarded == []
    assert api.keeper.leases.deadline(Key(*HERE)) is None, "nothing is renewed"


@pytest.mark.parametrize("target", [renewal("users", "unknown"), renewal(*THERE, f"?holder={'h' * 200}")])
async def test_an_error_of_the_request_is_left_to_the_application(
    api: NativeApi, others: ScriptedNodes, target: str
) -> None:
    assert api.answers("POST", target.encode()) is None
    assert others.forwarded == []


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_renewals_that_another_node_forwards_have_the_answer_of_the_application(
    api: NativeApi, others: ScriptedNodes, node: str
) -> None:
    body = renew_body(HERE, THERE, ("orders", "gone"))
    forwarded = [*JSON_HEADERS, (b"adsum-forwarded-to", node.encode())]
    replies = api.answers("POST", b"/api/v1/renew", body, forwarded)
    expected = await api.request("POST", "/api/v1/renew", body, JSON | {"Adsum-Forwarded-To": node})
    if node == "n1":
        assert [whole(reply) for reply in replies or ()] == [(200, expected.headers, expected.body)]
        assert json.loads(expected.body)["not_kept"] == ["users"]
    else:
        assert (replies, expected.status) == (None, 421)
    assert others.forwarded == []


async def test_only_nodes_forward_renewals(api: NativeApi) -> None:
    writers = parse_scopes("scopes", ["write:*"])
    other = NativeApi(api.store, sharding=FakeSharding("orders"), anonymous=writers)
    await other.registry.start()
    forwarded = [*JSON_HEADERS, (b"adsum-forwarded-to", b"n1")]
    assert other.answers("POST", b"/api/v1/renew", renew_body(HERE), forwarded) is None
    assert other.keeper.leases.deadline(Key(*HERE)) is None
    assert other.answers("POST", b"/api/v1/renew", renew_body(HERE), JSON_HEADERS) is not None
    await other.registry.stop()


async def test_nobody_has_a_lease_renewed_elsewhere_without_the_right(api: NativeApi, others: ScriptedNodes) -> None:
    readers = parse_scopes("scopes", ["read:*"])
    reading = NativeApi(api.store, sharding=FakeSharding("orders"), peers=others, anonymous=readers)
    await reading.registry.start()
    assert reading.registry.snapshot.find(Key(*THERE)) is not None
    assert reading.answers("POST", renewal(*THERE).encode()) is None
    reading.answers("POST", b"/api/v1/renew", renew_body(THERE), JSON_HEADERS)
    assert others.forwarded == []
    await reading.registry.stop()
