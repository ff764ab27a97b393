"""A real Envoy that is configured by a real registry, in both variants of xDS."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.dialects.xds.conftest import RegistryProcess
from tests.dialects.xds.envoys import envoy, instances
from tests.scenarios.processes import JsonApi, wait_until

both_variants = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


async def _register(api: JsonApi, service: str, id: str, port: int) -> None:
    await api.put(f"/services/{service}/instances/{id}", port=port, address="127.0.0.1", ttl=600)


@both_variants
async def test_it_follows_registrations_drains_and_deregistrations(
    registry: RegistryProcess, tmp_path: Path, *, delta: bool
) -> None:
    await registry.start()
    with instances("a", "b") as servers, envoy(registry.xds, tmp_path, delta=delta) as gateway:
        async with JsonApi(registry.sandbox.url) as api:
            await _register(api, "orders", "a", servers["a"].port)
            await asyncio.to_thread(gateway.answers, "/orders/1", "a")
            await _register(api, "orders", "b", servers["b"].port)
            await asyncio.to_thread(gateway.answers, "/orders/1", "a", "b")
            body = {"status": "draining", "reason": "test", "wait": 20.0}
            written = await api.put("/services/orders/instances/b/override", **body)
            assert "unacknowledged" not in written
            assert {gateway.get("/orders/1") for _ in range(50)} == {(200, "a")}, (
                "b is drained, and the gateway has acknowledged it"
            )
            await api.delete("/services/orders/instances/b")
            await api.delete("/services/orders/instances/a")
            await asyncio.to_thread(gateway.answers_with, "/orders/1", 503)
            assert gateway.get("/unknown/")[0] == 404
            status = await api.get("/status")
            (view,) = status["gateways"]
            assert (view["node"], view["client"].split()[0]) == ("gw1", "envoy")
            await wait_until(lambda: gateway.process.poll() is None)


@both_variants
async def test_it_keeps_routing_while_the_registry_is_down_and_after_it_restarts_empty(
    registry: RegistryProcess, tmp_path: Path, *, delta: bool
) -> None:
    node = await registry.start()
    with instances("a", "b", "c") as servers, envoy(registry.xds, tmp_path, delta=delta) as gateway:
        async with JsonApi(registry.sandbox.url) as api:
            await _register(api, "orders", "a", servers["a"].port)
            await _register(api, "users", "b", servers["b"].port)
            await asyncio.to_thread(gateway.answers, "/orders/1", "a")
            await asyncio.to_thread(gateway.answers, "/users/1", "b")
            await node.stop(signal.SIGKILL)
            assert gateway.get("/orders/1") == (200, "a")
            await registry.start()

            async def is_back() -> bool:
                return bool((await api.get("/status")).get("gateways"))

            while not await is_back():
                assert gateway.get("/orders/1") == (200, "a")
                await asyncio.sleep(0.05)
            # When it calls c, it has applied everything that the registry sent while its catalog was empty.
            await _register(api, "orders", "c", servers["c"].port)
            await asyncio.sleep(0.5)
            assert {gateway.get("/orders/1") for _ in range(20)} == {(200, "a")}, "`a` may be registered again"
            await _register(api, "orders", "a", servers["a"].port)
            answer = await api.put("/services/orders/instances/a/override", status="draining", wait=20.0)
            assert "unacknowledged" not in answer
            assert {gateway.get("/orders/1") for _ in range(20)} == {(200, "c")}, (
                "an instance that leaves is pushed at once"
            )
            assert gateway.get("/users/1") == (200, "b"), "users is not registered again yet, and the gateway keeps it"


@both_variants
async def test_a_rate_limit_counts_over_all_hosts_and_survives_other_changes(
    registry: RegistryProcess, tmp_path: Path, *, delta: bool
) -> None:
    await registry.start()
    with instances("a") as servers, envoy(registry.xds, tmp_path, delta=delta) as gateway:
        async with JsonApi(registry.sandbox.url) as api:

            async def declare(route: str, requests: int = 3, **more: object) -> None:
                limit = {"requests": requests, "per": "1h"}
                await api.put(
                    f"/routes/{route}", path={"prefix": f"/{route}"}, to=[{"service": "a"}], rate_limit=limit, **more
                )

            def status(path: str, host: str) -> int:
                return gateway.http.get(path, headers={"host": host}).status_code

            await _register(api, "a", "a", servers["a"].port)
            await declare("ready", 1_000)
            await declare("hosts", hosts=["one.example", "two.example"])
            await declare("any")
            await api.put("/routes/last", path={"prefix": "/last"}, to=[{"service": "a"}])
            await asyncio.to_thread(gateway.answers, "/last", "a")
            hosts = ("one.example", "two.example", "one.example")
            for route in ("hosts", "any"):
                assert [status(f"/{route}", host) for host in hosts] == [200, 200, 200]
            await api.put("/routes/later", path={"prefix": "/later"}, to=[{"service": "a"}])
            await asyncio.to_thread(gateway.answers, "/later", "a")
            await _register(api, "b", "b", servers["a"].port)
            await asyncio.to_thread(gateway.answers, "/b/", "a")
            for route in ("hosts", "any"):
                assert {status(f"/{route}", host) for host in hosts} == {429}
            refused = gateway.http.get("/any")
            assert (refused.headers["content-type"], refused.headers["retry-after"]) == (
                "application/problem+json",
                "1",
            )
            assert (refused.json()["title"], refused.json()["route"]) == ("Rate limited", "any")
            assert gateway.get("/ready") == (200, "a")
            assert gateway.http.get("/any", headers={"host": "three.example"}).status_code == 429


@both_variants
async def test_callers_of_a_rejected_cluster_get_the_reason_and_other_services_do_not_wait(
    registry: RegistryProcess, tmp_path: Path, *, delta: bool
) -> None:
    await registry.start()
    with instances("a") as servers, envoy(registry.xds, tmp_path, delta=delta) as gateway:
        async with JsonApi(registry.sandbox.url) as api:
            await _register(api, "orders", "a", servers["a"].port)
            await asyncio.to_thread(gateway.answers, "/orders/1", "a")
            await api.put("/upstreams/typo", tls={"ca": "/no/such/folder/authorities.pem"})
            await api.put("/services/typo/instances/t", port=9, address="127.0.0.1", scheme="https", ttl=600)
            await asyncio.to_thread(gateway.answers_with, "/typo/1", 503)
            await wait_until(lambda: "cause" in gateway.get("/typo/1")[1], lambda: gateway.get("/typo/1"))
            refused = gateway.http.get("/typo/1").json()
            assert refused["service"] == "typo"
            assert refused["cause"].endswith("authorities.pem")
            assert "folder" not in refused["cause"]
            answer = await api.put("/services/orders/instances/a/override", status="draining", wait=20.0)
            assert "unacknowledged" not in answer
            assert gateway.get("/orders/1")[0] == 503
            (view,) = (await api.get("/status"))["gateways"]
            assert "/no/such/folder/authorities.pem" in view["rejections"]["clusters"]
            await api.put("/upstreams/typo", tls={"verify": False})
            await wait_until(lambda: "cause" not in gateway.get("/typo/1")[1])
            (view,) = (await api.get("/status"))["gateways"]
            assert "rejections" not in view


async def test_the_status_shows_its_reason_for_a_rejection(registry: RegistryProcess, tmp_path: Path) -> None:
    node = await registry.start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with envoy(registry.xds, tmp_path, port=taken.getsockname()[1]):
            await node.wait_for_output("gw1 rejects its listeners")
            async with JsonApi(registry.sandbox.url) as api:
                (view,) = (await api.get("/status"))["gateways"]
                assert address in view["rejections"]["listeners"]
                metrics = (await api.http.get(f"{registry.sandbox.url}/metrics")).text
                assert 'adsum_xds_rejections_total{kind="listeners"} 1.0' in metrics
            status = registry.sandbox.adsum("status")
            await status.wait()
            assert "gw1" in status.stdout
            assert address in status.stdout


@both_variants
async def test_with_a_token_it_gets_what_it_may_read_and_keeps_that_when_the_token_is_revoked(
    registry: RegistryProcess, tmp_path: Path, *, delta: bool
) -> None:
    await registry.start()
    async with JsonApi(registry.sandbox.url) as api:
        for name, port in (("orders", 1), ("users", 2)):
            await _register(api, name, "placeholder", port)
        issued = await api.http.post("/tokens", json={"name": "gateway", "scopes": ["read:orders"]})
        token = issued.json()["token"]
        with instances("a", "b") as servers, envoy(registry.xds, tmp_path, delta=delta, token=token) as gateway:
            await _register(api, "orders", "placeholder", servers["a"].port)
            await _register(api, "users", "placeholder", servers["b"].port)
            await asyncio.to_thread(gateway.answers, "/orders/1", "a")
            assert gateway.get("/users/1")[0] == 404
            drained = await api.put("/services/users/instances/placeholder/override", status="draining", wait=20.0)
            assert "unacknowledged" not in drained
            (await api.http.delete("/tokens/gateway")).raise_for_status()

            async def is_refused() -> bool:
                status = await api.get("/status")
                codes = [refused["code"] for refused in status.get("refused_streams", ())]
                return "UNAUTHENTICATED" in codes and not status.get("gateways")

            while not await is_refused():
                assert gateway.get("/orders/1") == (200, "a")
                await asyncio.sleep(0.05)
            assert gateway.get("/orders/1") == (200, "a"), "it goes on with its last configuration"
