"""Clients of other nodes: over TLS alone, and with the present certificate."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from random import Random

import pytest

from adsum.core.nodes.sharding import Peer
from adsum.peers.peer_clients import MAX_PEER_CONNECTIONS, PeerClients, PeerNotSecure

N2 = Peer("id2", "n2", "https://127.0.0.1:1")


class FixedCertificates:
    """Certificates of a node that the test replaces."""

    def __init__(self) -> None:
        self.version = 1
        self.made = 0

    def client_context(self) -> ssl.SSLContext:
        self.made += 1
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def certificates() -> FixedCertificates:
    return FixedCertificates()


@pytest.fixture
async def clients(certificates: FixedCertificates) -> AsyncIterator[PeerClients]:
    clients = PeerClients(Random(1), certificates)
    yield clients
    await clients.close()
    await clients.close()


async def test_a_client_is_kept_until_the_certificate_is_replaced(
    clients: PeerClients, certificates: FixedCertificates
) -> None:
    first = clients.api(N2)
    assert clients.api(N2) is first
    assert certificates.made == 1
    for version in (2, 3):
        certificates.version = version
        replaced = clients.api(N2)
        assert replaced is not first
        assert certificates.made == version
        first = replaced


async def test_the_client_of_another_run_of_a_node_is_another_one(clients: PeerClients) -> None:
    assert clients.api(N2) is not clients.api(Peer("id3", N2.name, N2.url))
    assert clients.api(N2).headers["Adsum-Forwarded-To"] == "id2"


async def test_it_sends_no_token_and_trusts_no_authority_of_the_system(
    clients: PeerClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_TOKEN_FILE", "/nowhere")
    context = clients.api(N2).transport.ssl_context
    assert context is not None
    assert context.get_ca_certs() == []
    assert "Authorization" not in clients.api(N2).headers


async def test_a_node_without_tls_is_not_called_by_a_secure_one(clients: PeerClients) -> None:
    with pytest.raises(PeerNotSecure, match="start it with --secure"):
        clients.api(Peer("id4", "n4", "http://127.0.0.1:1"))


async def test_an_open_node_calls_others_in_plain_text() -> None:
    clients = PeerClients(Random(1))
    assert clients.api(Peer("id4", "n4", "http://127.0.0.1:1")).transport.ssl_context is None
    await clients.close()


async def test_the_client_that_was_used_longest_ago_is_dropped(clients: PeerClients) -> None:
    peers = [Peer(f"id{n}", f"n{n}", N2.url) for n in range(MAX_PEER_CONNECTIONS + 1)]
    first, second, *_ = kept = [clients.api(peer) for peer in peers]
    assert clients.api(peers[1]) is second
    assert clients.api(peers[-1]) is kept[-1]
    assert clients.api(peers[0]) is not first
