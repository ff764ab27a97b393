"""What nodes pass on to one another, over real nodes and wires that can be cut."""

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
HERE, GONE = wire.LeaseBody("orders", "a", ""), wire.LeaseBody("orders", "b", "")


class Known:
    """Shares as a test says them."""

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
async def cut(daemon: RunningDaemon) -> AsyncIterator[TcpProxy]:
    """A wire to a node that lists `THIS_NODE`."""
    async with httpx.AsyncClient(base_url=daemon.url, trust_env=False) as http:
        (await http.put("/api/v1/services/orders/instances/a", json={"port": 80, "ttl": 60})).raise_for_status()
    wire = await TcpProxy(int(daemon.url.rpartition(":")[2])).open()
    yield wire
    await wire.close()


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    peers = Peers(Known([NOWHERE]), SystemClock(), Random(1))
    yield peers
    await peers.close()


async def _nobody_here(
    service: str, revision: int, wait: float, about: Sequence[str], hints: ConsumerHints
) -> wire.AcknowledgementReport:
    """This node has no consumers."""
    return wire.AcknowledgementReport("e1", revision, 0)


def _over(wire: TcpProxy, id: str = "test") -> Peer:
    """The node of the fixture `daemon`, or another that is taken to be there."""
    return Peer(id, id, f"http://127.0.0.1:{wire.port}")


async def test_the_keeper_of_a_lease_renews_it_and_names_lost_ones(peers: Peers, cut: TcpProxy) -> None:
    assert await peers.renew([_over(cut)], [HERE, GONE]) == [wire.LostLease("orders", "b", "unknown")]


async def test_one_answer_is_enough_if_several_nodes_may_keep_a_lease(peers: Peers, cut: TcpProxy) -> None:
    assert await peers.renew([NOWHERE, _over(cut)], [HERE]) == []


async def test_a_lease_that_one_node_knows_is_not_lost(peers: Peers, cut: TcpProxy) -> None:
    empty = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="empty"))
    try:
        other = Peer("empty", "empty", empty.url)
        assert await peers.renew([other], [HERE]) == [wire.LostLease("orders", "a", "unknown")]
        assert await peers.renew([other, _over(cut)], [HERE]) == []
    finally:
        await asyncio.to_thread(empty.stop)


async def test_nothing_is_called_renewed_when_no_node_answers(peers: Peers) -> None:
    with pytest.raises(KeeperUnavailable, match="nowhere can't be asked"):
        await peers.renew([NOWHERE], [HERE])


async def test_another_run_of_a_node_renews_nothing_and_refuses(
    daemon: RunningDaemon, peers: Peers, cut: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    for meant in (_over(cut, "n2"), _over(cut, "an earlier run")):
        with pytest.raises(KeeperUnavailable, match=f"{meant.name} can't be asked"):
            await peers.renew([meant], [HERE])
        assert f"forwarded to {meant.name} at {meant.url}, and are refused: the registry refused (421)" in caplog.text
    assert await peers.renew([_over(cut)], [HERE]) == [], "at the same address"


async def test_another_run_of_a_node_does_not_answer_for_the_consumers_of_the_former_one(cut: TcpProxy) -> None:
    for peer, unaware in ((_over(cut, "n2"), 1), (_over(cut), 0)):
        asking = Peers(Known([peer]), SystemClock(), Random(1))
        assert (await asking.wait_for_acknowledgements(_nobody_here, "orders", 1, 0.0)).unacknowledged == unaware
        await asking.close()


async def test_a_slow_node_still_receives_the_renewal(daemon: RunningDaemon, peers: Peers, cut: TcpProxy) -> None:
    cut.partition()
    began = asyncio.get_running_loop().time()
    with pytest.raises(KeeperUnavailable):
        await peers.renew([_over(cut)], [HERE])
    assert asyncio.get_running_loop().time() - began >= RENEWAL_ANSWER_TIMEOUT * 0.9
    before = await _renewals(daemon)
    cut.heal()
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
    monkeypatch.setattr(wire, "PROTOCOL", "0.9")  # Ours: to a node of before, today's is a later one.
    with pytest.raises(KeeperUnavailable):
        await peers.renew([Peer("test", "other", daemon.url)], [HERE])
    assert "renewals can't be forwarded to other" in caplog.text
    assert "it speaks version '1.0' of the protocol, and Adsum" in caplog.text
