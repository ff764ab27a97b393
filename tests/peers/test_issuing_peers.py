"""Requests that only a node with the authority's key can serve: to which node they go, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from random import Random

import pytest

from adsum.core.nodes.sharding import Peer
from adsum.peers import issuing_peers
from adsum.peers.issuing_peers import ForwardedReply, IssuingPeers, NoIssuingNode
from adsum.peers.peer_clients import PeerClients
from tests.client.stub_node import StubNode, http_reply, stub_node

DECLINED = http_reply(503, b"{}")


class Forwarding:
    """A node with peers, in the order of their names."""

    def __init__(self, stubs: Sequence[StubNode]) -> None:
        self.stubs = stubs
        self.peers = [Peer(f"id{n}", f"n{n}", stub.url) for n, stub in enumerate(stubs)]
        self.clients = PeerClients(Random(1))
        self.issuing = IssuingPeers(lambda: self.peers, self.clients, Random(1), "this")

    async def join(self) -> ForwardedReply:
        return await self.issuing.forward("/join", b'{"secret":"x"}', "", "10.0.0.9")

    @property
    def counts(self) -> list[int]:
        return [len(stub.requests) for stub in self.stubs]


@pytest.fixture
async def forwarding() -> AsyncIterator[Forwarding]:
    async with AsyncExitStack() as stack:
        found = Forwarding([await stack.enter_async_context(stub_node()) for _ in range(3)])
        yield found
        await found.clients.close()


async def test_the_answer_of_the_first_node_that_serves_it_is_passed_on(forwarding: Forwarding) -> None:
    first, second, _ = forwarding.stubs
    first.answer, second.answer = DECLINED, http_reply(201, b'{"token":"t"}')
    assert await forwarding.join() == ForwardedReply(201, b'{"token":"t"}', "application/json")
    assert forwarding.counts == [1, 1, 0]
    assert second.requests == ["POST /api/v1/join"]
    assert second.bodies == [b'{"secret":"x"}']


@pytest.mark.parametrize("status", [401, 409, 422])
async def test_a_refusal_is_an_answer_too(forwarding: Forwarding, status: int) -> None:
    forwarding.stubs[0].answer = http_reply(status, b"{}")
    assert (await forwarding.join()).status == status
    assert forwarding.counts == [1, 0, 0]


async def test_the_node_that_served_the_last_one_is_tried_first(forwarding: Forwarding) -> None:
    for stub in forwarding.stubs[:2]:
        stub.answer = DECLINED
    forwarding.stubs[2].answer = http_reply(201, b"{}")
    await forwarding.join()
    await forwarding.join()
    assert forwarding.counts == [1, 1, 2]


async def test_a_node_that_can_not_be_reached_is_passed_over(forwarding: Forwarding) -> None:
    forwarding.peers[0] = Peer("gone", "n0", "http://127.0.0.1:1")
    forwarding.stubs[1].answer = http_reply(201, b"{}")
    assert (await forwarding.join()).status == 201


async def test_a_join_whose_answer_is_lost_is_not_sent_to_another_node(
    forwarding: Forwarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuing_peers, "FORWARD_TIMEOUT", 0.3)
    forwarding.stubs[0].delay = 1.0
    with pytest.raises(NoIssuingNode, match="n0 did not answer, and may have served the request"):
        await forwarding.join()
    assert forwarding.counts == [1, 0, 0]


async def test_without_an_answer_all_problems_are_named(forwarding: Forwarding) -> None:
    for stub in forwarding.stubs:
        stub.answer = DECLINED
    with pytest.raises(NoIssuingNode, match=r"n0: it declined with status 503; n1: .*; n2: "):
        await forwarding.join()
    forwarding.peers.clear()
    with pytest.raises(NoIssuingNode, match="this node knows no other one"):
        await forwarding.join()


async def test_a_certificate_is_requested_over_tls_alone(forwarding: Forwarding) -> None:
    with pytest.raises(NoIssuingNode, match="no other node that serves TLS"):
        await forwarding.issuing.request_certificate(b"csr", "adsum_secret", b"pem", "ab" * 32)
    assert forwarding.counts == [0, 0, 0]
