"""Checks end to end: the registry probes a real instance, and its status follows `rise` and `fall`."""

from __future__ import annotations

from contextlib import AsyncExitStack

from adsum.client.client import Client
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import JsonApi, ScenarioSandbox, wait_until

CHECK = "http:/health?interval=200ms&timeout=5s&rise=2&fall=3"


async def test_a_failing_instance_is_critical_after_fall_and_passing_after_rise(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        client = await stack.enter_async_context(Client(sandbox.url, cache=False))
        one, two = [await stack.enter_async_context(running_instance(f"o{n}")) for n in (1, 2)]
        for server in (one, two):
            await client.register("orders", server.port, id=server.id, check=CHECK, ttl=600).start(30.0)
        channel = client.channel("orders")
        await wait_until(lambda: channel.usable_count == 2)
        probed = one.probe_count
        one.health_status = b"500 Internal Server Error"
        await api.wait_for_statuses("orders", lambda statuses: statuses == {"o1": "critical", "o2": "passing"})
        assert one.probe_count - probed >= 3, "not before `fall` of them"
        await wait_until(lambda: channel.usable_count == 1)
        assert {channel.pick().endpoint.id for _ in range(10)} == {"o2"}
        detail = await api.get("/services/orders/instances/o1")
        assert (detail["evidence"], detail["lease"], detail["checks"][0]["result"]) == ("critical", "held", "fail")
        assert "500" in detail["checks"][0]["note"]
        probed, one.health_status = one.probe_count, b"200 OK"
        await api.wait_for_statuses("orders", lambda statuses: statuses == {"o1": "passing", "o2": "passing"})
        assert one.probe_count - probed >= 2, "not before `rise` of them"
        await wait_until(lambda: channel.usable_count == 2)
        history = await api.get("/changes", service="orders", id="o1")
        assert [change["status"] for change in history["changes"]][:2] == ["passing", "critical"]
        assert all(change["cause"] and change["actor"] for change in history["changes"])


async def test_a_redirect_is_not_followed(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        one, elsewhere = [await stack.enter_async_context(running_instance(id)) for id in ("o1", "elsewhere")]
        one.health_status, one.location = b"302 Found", f"http://127.0.0.1:{elsewhere.port}/health"
        check = {"name": "web", "kind": "http", "path": "/health", "interval": 0.2, "fall": 1}
        await api.put("/services/orders/instances/o1", port=one.port, checks=[check])
        await api.wait_for_statuses("orders", lambda statuses: statuses == {"o1": "critical"})
        probed = one.probe_count
        await wait_until(lambda: one.probe_count > probed + 2)
        assert elsewhere.probe_count == 0
        detail = await api.get("/services/orders/instances/o1")
        assert "302" in detail["checks"][0]["note"]


async def test_a_link_local_address_is_refused_with_its_field(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    async with JsonApi(sandbox.url) as api:
        for address in ("169.254.169.254", "fe80::1", "224.0.0.1"):
            path = "/services/orders/instances/o1"
            answer = await api.http.put(path, json={"port": 80, "address": address})
            assert (answer.status_code, answer.json()["field"]) == (422, "address")
        command = sandbox.adsum("register", "orders", "--port", "80", "--address", "169.254.169.254", "--ttl", "none")
        assert await command.wait() == 2
        assert "address" in command.stderr
        assert await api.statuses("orders") == {}
