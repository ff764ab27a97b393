"""Several nodes over one etcd, in this process: what they have and don't have of one another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from adsum.config.serve import ServeConfig
from adsum.core.catalog.changes import FullState
from adsum.daemon import Daemon
from adsum.stores.etcd import EtcdStore, membership
from tests.support.etcd_process import EtcdProcess

SERVICES = [f"s{n}" for n in range(24)]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as etcd:
        yield etcd


@asynccontextmanager
async def serving(etcd: EtcdProcess, name: str, advertise: str = "") -> AsyncIterator[Daemon]:
    node = Daemon(_config(etcd, name, advertise))
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def _config(etcd: EtcdProcess, name: str, advertise: str = "") -> ServeConfig:
    return ServeConfig(listen="127.0.0.1:0", xds="off", store=etcd.url, node=name, advertise=advertise)


async def _until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20.0):
        while not true():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def _share(*nodes: Daemon) -> None:
    """Return when they have shared everything among them, and each keeps its part of the leases."""
    await _until(lambda: all(_shares(node) == _shares(nodes[0]) and len(_shares(node)) == len(nodes) for node in nodes))
    await _until(lambda: sum(node.status().leases for node in nodes) == len(SERVICES))


def _shares(node: Daemon) -> dict[str, int]:
    said = node.status()
    found = {said.node: said.shards, **{peer.node: peer.shards for peer in said.peers}}
    return found if sum(found.values()) == 256 and all(found.values()) else {}


async def _register(node: Daemon) -> None:
    async with httpx.AsyncClient(base_url=node.urls[0], trust_env=False) as http:
        for service in SERVICES:
            path = f"/api/v1/services/{service}/instances/i"
            (await http.put(path, json={"port": 80, "ttl": 60})).raise_for_status()


async def _renewed(node: Daemon, trouble: str = "can't be asked to renew") -> set[str]:
    """The services whose instance was renewed when that node was asked to; the others for `trouble` were not."""
    renewed = set()
    async with httpx.AsyncClient(base_url=node.urls[0], trust_env=False) as http:
        for service in SERVICES:
            answer = await http.post(f"/api/v1/services/{service}/instances/i/renew")
            if answer.status_code == 200:
                renewed.add(service)
            else:
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
                assert trouble in answer.json()["detail"]
    return renewed


async def test_a_renewal_may_reach_any_node(etcd: EtcdProcess) -> None:
    async with serving(etcd, "n1") as one, serving(etcd, "n2") as other:
        await _register(one)
        await _share(one, other)
        assert await _renewed(one) == await _renewed(other) == set(SERVICES)
        assert "nodes" not in one.status().store_condition


async def test_a_node_that_reaches_only_itself_forwards_nothing_and_calls_nothing_renewed(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on hosts that advertise loopback: whatever n1 sends to n2 comes to n1 itself, and the other way round."""
    monkeypatch.setattr(membership, "ADDRESS_WARNING_DELAY", 0.5)
    async with serving(etcd, "n1") as one, serving(etcd, "n2", one.urls[0]) as other:
        await _register(one)
        await _share(one, other)
        at_one = await _renewed(one)
        assert at_one < set(SERVICES), "what n2 keeps is not renewed"
        assert await _renewed(other) == set(SERVICES), "n1 is reached"
        for node in (one, other):
            await _until(lambda node=node: "nodes" in node.status().store_condition)  # type: ignore[misc]
            said = node.status().store_condition["nodes"]
            assert said.startswith(f"n1 and n2 advertise the same address {one.urls[0]}")
            assert "--advertise" in said
        refusals = [each.getMessage() for each in caplog.records if each.name == "adsum.peers"]
        assert len(refusals) == 1, refusals
        assert refusals[0].startswith(f"renewals can't be forwarded to n2 at {one.urls[0]}, and are refused")
        assert caplog.text.count("n1 and n2 advertise the same address") == 2, "each tells it once"


async def test_a_node_that_ended_is_a_departed_peer_and_a_present_one_is_not(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(etcd, "n1") as one:
        shares = one.__dict__["_shares"]
        async with serving(etcd, "n2") as other:
            await _until(lambda: shares.peers())
            assert shares.departed_peers() == []
        await _until(lambda: shares.departed_peers())
        ((peer, ago),) = shares.departed_peers()
        assert (peer.name, peer.url) == ("n2", other.urls[0])
        assert 0.0 <= ago < 20.0
        assert shares.peers() == []
        monkeypatch.setattr(membership, "DEPARTED_NODE_RETENTION", 0.0)
        assert shares.departed_peers() == []


async def test_a_drain_is_confirmed_by_an_acknowledgement_at_any_node(etcd: EtcdProcess) -> None:
    async with serving(etcd, "n1") as one, serving(etcd, "n2") as other:
        await _register(one)
        await _share(one, other)
        away, body = "/api/v1/watch?service=s0&acks=true&consumer=c1&name=web", {"status": "draining", "wait": 8}
        async with (
            httpx.AsyncClient(base_url=one.urls[0], trust_env=False, timeout=20.0) as there,
            httpx.AsyncClient(base_url=other.urls[0], trust_env=False, timeout=20.0) as here,
        ):
            async with there.stream("GET", away) as answer:
                assert await _token(answer)
            drain = asyncio.create_task(here.put("/api/v1/services/s0/instances/i/override", json=body | {"wait": 0.5}))
            said = (await drain).json()
            assert [(each["name"], each["node"]) for each in said["waiting"]] == [("web", "n1")]
            assert "id" not in said["waiting"][0]
            drain = asyncio.create_task(here.put("/api/v1/services/s0/instances/i/override", json=body))
            async with here.stream("GET", away) as answer:
                token = await _token(answer)
                applied = {"revision": other.registry.snapshot.revision}
                await here.post(f"/api/v1/watches/{token}/acknowledge", json=applied)
                said = (await drain).json()
                assert "unacknowledged" not in said
                assert "lost" not in said


async def _token(answer: httpx.Response) -> str:
    """Of a watch, once it is open."""
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            token: str = json.loads(line.removeprefix("data: "))["watch"]
            return token
    raise AssertionError


async def test_nothing_is_called_renewed_while_no_node_is_certain_to_keep_it(etcd: EtcdProcess) -> None:
    async with serving(etcd, "n1") as one, serving(etcd, "n2") as other:
        await _register(one)
        await _share(one, other)
        etcd.kill()
        await _until(lambda: one.status().shards == other.status().shards == 0)
        for node in (one, other):
            assert await _renewed(node, "nobody keeps") == set()
        etcd.start()
        await _share(one, other)
        assert await _renewed(one) == await _renewed(other) == set(SERVICES)


async def test_a_node_takes_no_shards_before_its_catalog_is_loaded(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, loaded = asyncio.Event(), asyncio.Event()
    whole = EtcdStore._whole

    async def slowly(store: EtcdStore) -> FullState:
        loading.set()
        await loaded.wait()
        return await whole(store)

    async with serving(etcd, "n1") as one:
        await _register(one)
        await _until(lambda: one.status().leases == len(SERVICES))
        monkeypatch.setattr(EtcdStore, "_whole", slowly)
        late = Daemon(_config(etcd, "n2"))
        starting = asyncio.create_task(late.start())
        try:
            await loading.wait()
            await asyncio.sleep(membership.REBALANCE_INTERVAL)
            assert _shares(one) == {"n1": 256}
            assert await _renewed(one) == set(SERVICES)
            loaded.set()
            await starting
            await _share(one, late)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await late.stop()
