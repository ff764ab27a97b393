"""Several nodes over one etcd, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from adsum.config.serve import ServeConfig
from adsum.core.catalog.changes import FullState
from adsum.daemon import Daemon
from adsum.stores.etcd import EtcdStore, membership
from tests.support.etcd_process import EtcdProcess
from tests.support.waiting import until

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


async def _share(*nodes: Daemon) -> None:
    """Returns when the nodes have divided all shards, and each keeps its leases."""
    await until(lambda: all(_shares(node) == _shares(nodes[0]) and len(_shares(node)) == len(nodes) for node in nodes))
    await until(lambda: sum(node.status().leases for node in nodes) == len(SERVICES))


def _shares(node: Daemon) -> dict[str, int]:
    status = node.status()
    shards = {status.node: status.shards, **{peer.node: peer.shards for peer in status.peers}}
    return shards if sum(shards.values()) == 256 and all(shards.values()) else {}


async def _register(node: Daemon) -> None:
    async with httpx.AsyncClient(base_url=node.urls[0], trust_env=False) as http:
        for service in SERVICES:
            path = f"/api/v1/services/{service}/instances/i"
            (await http.put(path, json={"port": 80, "ttl": 60})).raise_for_status()


async def _renewed(node: Daemon, trouble: str = "can't be asked to renew") -> set[str]:
    """Renews the instances of all services at the node. Returns the services; the others failed with `trouble`."""
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
    async with serving(etcd, "n1") as first, serving(etcd, "n2") as second:
        await _register(first)
        await _share(first, second)
        assert await _renewed(first) == await _renewed(second) == set(SERVICES)
        assert "nodes" not in first.status().store_condition


async def test_a_node_that_reaches_only_itself_forwards_nothing_and_reports_nothing_as_renewed(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on hosts that advertise loopback: each node reaches itself at the address of the other."""
    monkeypatch.setattr(membership, "ADDRESS_WARNING_DELAY", 0.5)
    async with serving(etcd, "n1") as first, serving(etcd, "n2", first.urls[0]) as second:
        await _register(first)
        await _share(first, second)
        at_one = await _renewed(first)
        assert at_one < set(SERVICES), "what n2 keeps is not renewed"
        assert await _renewed(second) == set(SERVICES), "n1 is reached"
        for node in (first, second):
            await until(lambda node=node: "nodes" in node.status().store_condition)  # type: ignore[misc]
            status = node.status().store_condition["nodes"]
            assert status.startswith(f"n1 and n2 advertise the same address {first.urls[0]}")
            assert "--advertise" in status
        refusals = [record.getMessage() for record in caplog.records if record.name == "adsum.peers"]
        assert len(refusals) == 1, refusals
        assert refusals[0].startswith(f"renewals can't be forwarded to n2 at {first.urls[0]}, and are refused")
        assert caplog.text.count("n1 and n2 advertise the same address") == 2, "each node logs it once"


async def test_a_node_that_ended_is_a_departed_peer_and_a_present_one_is_not(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(etcd, "n1") as first:
        shares = first.__dict__["_sharding"]
        async with serving(etcd, "n2") as second:
            await until(lambda: shares.peers())
            assert shares.departed_peers() == []
        await until(lambda: shares.departed_peers())
        ((peer, ago),) = shares.departed_peers()
        assert (peer.name, peer.url) == ("n2", second.urls[0])
        assert 0.0 <= ago < 20.0
        assert shares.peers() == []
        monkeypatch.setattr(membership, "DEPARTED_NODE_RETENTION", 0.0)
        assert shares.departed_peers() == []


async def test_a_drain_is_confirmed_by_an_acknowledgement_at_any_node(etcd: EtcdProcess) -> None:
    async with serving(etcd, "n1") as first, serving(etcd, "n2") as second:
        await _register(first)
        await _share(first, second)
        watch, body = "/api/v1/watch?service=s0&acks=true&consumer=c1&name=web", {"status": "draining", "wait": 8}
        async with (
            httpx.AsyncClient(base_url=first.urls[0], trust_env=False, timeout=20.0) as first_http,
            httpx.AsyncClient(base_url=second.urls[0], trust_env=False, timeout=20.0) as second_http,
        ):
            async with first_http.stream("GET", watch) as answer:
                assert await _token(answer)
            drain = asyncio.create_task(
                second_http.put("/api/v1/services/s0/instances/i/override", json=body | {"wait": 0.5})
            )
            status = (await drain).json()
            assert [(consumer["name"], consumer["node"]) for consumer in status["waiting"]] == [("web", "n1")]
            assert "id" not in status["waiting"][0]
            drain = asyncio.create_task(second_http.put("/api/v1/services/s0/instances/i/override", json=body))
            async with second_http.stream("GET", watch) as answer:
                token = await _token(answer)
                acknowledged = {"revision": second.registry.snapshot.revision}
                await second_http.post(f"/api/v1/watches/{token}/acknowledge", json=acknowledged)
                status = (await drain).json()
                assert "unacknowledged" not in status
                assert "lost" not in status


async def _token(answer: httpx.Response) -> str:
    """The token of the watch, once it is open."""
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            token: str = json.loads(line.removeprefix("data: "))["watch"]
            return token
    raise AssertionError


async def test_nothing_is_reported_as_renewed_while_no_node_is_certain_to_keep_it(etcd: EtcdProcess) -> None:
    async with serving(etcd, "n1") as first, serving(etcd, "n2") as second:
        await _register(first)
        await _share(first, second)
        etcd.kill()
        await until(lambda: first.status().shards == second.status().shards == 0)
        for node in (first, second):
            assert await _renewed(node, "no node keeps") == set()
        etcd.start()
        await _share(first, second)
        assert await _renewed(first) == await _renewed(second) == set(SERVICES)


async def test_a_node_takes_no_shards_before_its_catalog_is_loaded(
    etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, loaded = asyncio.Event(), asyncio.Event()
    whole = EtcdStore._full_state

    async def slowly(store: EtcdStore) -> FullState:
        loading.set()
        await loaded.wait()
        return await whole(store)

    async with serving(etcd, "n1") as first:
        await _register(first)
        await until(lambda: first.status().leases == len(SERVICES))
        monkeypatch.setattr(EtcdStore, "_full_state", slowly)
        late = Daemon(_config(etcd, "n2"))
        starting = asyncio.create_task(late.start())
        try:
            await loading.wait()
            await asyncio.sleep(membership.REBALANCE_INTERVAL)
            assert _shares(first) == {"n1": 256}
            assert await _renewed(first) == set(SERVICES)
            loaded.set()
            await starting
            await _share(first, late)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await late.stop()
