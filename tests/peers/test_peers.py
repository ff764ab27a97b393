"""Requests to other nodes, over real nodes and connections that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence, Set
from random import Random

import httpx
import pytest

from adsum import wire
from adsum.clock import SystemClock
from adsum.config.serve import ServeConfig
from adsum.consumers import ConsumerHints
from adsum.core.errors import KeeperUnavailable
from adsum.core.nodes.sharding import Peer
from adsum.peers.peers import Peers
from adsum.peers.renewal_forwarder import RENEWAL_ANSWER_TIMEOUT
from tests.support.registry_daemon import RunningDaemon
from tests.support.tcp_proxy import TcpProxy

NOWHERE = Peer("n", "nowhere", "http://127.0.0.1:1")
LISTED, UNLISTED = wire.LeaseBody("orders", "a", ""), wire.LeaseBody("orders", "b", "")


class FixedPeers:
    """Implements `ports.Sharding` with the peers that the test sets."""

    id = "asking"
    kept_shards: Set[int] = frozenset()

    def __init__(self, peers: Collection[Peer]) -> None:
        self._peers = peers

    def advertise(self, url: str) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError

    def keepers(self, service: str) -> Sequence[Peer]:
        return list(self._peers) if service else ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        return [(peer, 0) for peer in self._peers]

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        return ()


@pytest.fixture
async def proxy(daemon: RunningDaemon) -> AsyncIterator[TcpProxy]:
    """A proxy to a node that lists `LISTED`."""
    async with httpx.AsyncClient(base_url=daemon.url, trust_env=False) as http:
        (await http.put("/api/v1/services/orders/instances/a", json={"port": 80, "ttl": 60})).raise_for_status()
    opened = await TcpProxy(int(daemon.url.rpartition(":")[2])).open()
    yield opened
    await opened.close()


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    peers = Peers(FixedPeers([NOWHERE]), SystemClock(), Random(1))
    yield peers
    await peers.close()


async def _no_consumers_here(
    service: str, revision: int, wait: float, ids: Sequence[str], hints: ConsumerHints
) -> wire.AcknowledgementReport:
    """This node has no consumers."""
    return wire.AcknowledgementReport("e1", revision, 0)


def _peer_at(proxy: TcpProxy, id: str = "test") -> Peer:
    """The node of the fixture `daemon`, or another one that is expected at its address."""
    return Peer(id, id, f"http://127.0.0.1:{proxy.port}")


async def test_the_keeper_of_a_lease_renews_it_and_names_lost_ones(peers: Peers, proxy: TcpProxy) -> None:
    assert await peers.renew([_peer_at(proxy)], [LISTED, UNLISTED]) == [wire.LostLease("orders", "b", "unknown")]


async def test_one_answer_is_enough_if_several_nodes_may_keep_a_lease(peers: Peers, proxy: TcpProxy) -> None:
    assert await peers.renew([NOWHERE, _peer_at(proxy)], [LISTED]) == []


async def test_a_lease_that_one_node_knows_is_not_lost(peers: Peers, proxy: TcpProxy) -> None:
    empty = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="empty"))
    try:
        other = Peer("empty", "empty", empty.url)
        assert await peers.renew([other], [LISTED]) == [wire.LostLease("orders", "a", "unknown")]
        assert await peers.renew([other, _peer_at(proxy)], [LISTED]) == []
    finally:
        await asyncio.to_thread(empty.stop)


async def test_nothing_is_reported_as_renewed_when_no_node_answers(peers: Peers) -> None:
    with pytest.raises(KeeperUnavailable, match="nowhere can't be asked"):
        await peers.renew([NOWHERE], [LISTED])


async def test_another_run_of_a_node_renews_nothing_and_refuses(
    daemon: RunningDaemon, peers: Peers, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    for peer in (_peer_at(proxy, "n2"), _peer_at(proxy, "an earlier run")):
        with pytest.raises(KeeperUnavailable, match=f"{peer.name} can't be asked"):
            await peers.renew([peer], [LISTED])
        assert f"forwarded to {peer.name} at {peer.url}, and are refused: the registry refused (421)" in caplog.text
    assert await peers.renew([_peer_at(proxy)], [LISTED]) == [], "at the same address"


async def test_another_run_of_a_node_does_not_answer_for_the_consumers_of_the_former_one(proxy: TcpProxy) -> None:
    for peer, unacknowledged_count in ((_peer_at(proxy, "n2"), 1), (_peer_at(proxy), 0)):
        peers = Peers(FixedPeers([peer]), SystemClock(), Random(1))
        assert (
            await peers.wait_for_acknowledgements(_no_consumers_here, "orders", 1, 0.0)
        ).unacknowledged == unacknowledged_count
        await peers.close()


async def test_a_slow_node_still_receives_the_renewal(daemon: RunningDaemon, peers: Peers, proxy: TcpProxy) -> None:
    proxy.partition()
    began = asyncio.get_running_loop().time()
    with pytest.raises(KeeperUnavailable):
        await peers.renew([_peer_at(proxy)], [LISTED])
    assert asyncio.get_running_loop().time() - began >= RENEWAL_ANSWER_TIMEOUT * 0.9
    before = await _renewals(daemon)
    proxy.heal()
    async with asyncio.timeout(5.0):
        while await _renewals(daemon) == before:  # noqa: ASYNC110 - in another thread
            await asyncio.sleep(0.01)


async def _renewals(daemon: RunningDaemon) -> float:
    async with httpx.AsyncClient(base_url=daemon.url, trust_env=False) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    counted = 'adsum_request_seconds_count{code="200",operation="renew_many"} '
    return next((float(line.removeprefix(counted)) for line in lines if line.startswith(counted)), 0.0)


async def test_a_node_of_a_later_protocol_is_named_in_the_log(
    peers: Peers, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire, "PROTOCOL", "0.9")  # This node has an earlier version than the other one.
    with pytest.raises(KeeperUnavailable):
        await peers.renew([Peer("test", "other", daemon.url)], [LISTED])
    assert "renewals can't be forwarded to other" in caplog.text
    assert "it speaks version '1.0' of the protocol, and Adsum" in caplog.text
