"""The requests and errors in `adsum status` are those that callers of a gateway got, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.instance_server import InstanceServer, running_instance
from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioProcess, ScenarioRegistry, ScenarioSandbox


class CountedGateway:
    """A gateway, the registries at `xds` that it follows, and a caller that counts its answers."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = [f"127.0.0.1:{sandbox.port()}" for _ in range(2)]
        self._listen, self.monitor = f"127.0.0.1:{sandbox.port()}", f"http://127.0.0.1:{sandbox.port()}"
        self.got: Counter[tuple[str, int]] = Counter()
        self.http = httpx.AsyncClient(base_url=f"http://{self._listen}", timeout=SCENARIO_TIMEOUT, trust_env=False)

    async def start_registry(self) -> ScenarioRegistry:
        return await self.sandbox.start_registry("memory:", "--xds", self.xds[0])

    async def start_gateway(self, *xds: str) -> ScenarioProcess:
        addresses = ["--listen", self._listen, "--xds", ",".join(xds or self.xds[:1]), "--access-log", "off"]
        options = ["--monitor", self.monitor.removeprefix("http://"), "--concurrency", "2", "--node", "gw"]
        gateway = self.sandbox.run("gateway", "-m", "adsum", "gateway", *addresses, *options)
        await gateway.wait_for_output("listens on")
        return gateway

    async def call(self, service: str, times: int = 1) -> int:
        """Calls the service that many times. Returns the status of the last answer."""
        status = 0
        for _ in range(times):
            status = (await self.http.get(f"/{service}/x")).status_code
            # Without a route, the gateway does not know the service of the request.
            self.got[service if status != 404 else "", status] += 1
        return status

    async def wait_for_status(self, service: str, status: int = 200) -> None:
        """Calls until the answer has that status. All calls count."""
        while await self.call(service) != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)

    def counts_of(self, *services: str) -> tuple[int, int]:
        """Returns the numbers of requests and errors that the caller got from these services."""
        got = [(status, count) for (service, status), count in self.got.items() if service in services]
        return sum(count for _, count in got), sum(count for status, count in got if status >= 500)

    @property
    def all(self) -> tuple[int, int]:
        return self.counts_of(*(service for service, _ in self.got))

    async def wait_for_counts(self, api: JsonApi, *, anew: bool = False) -> None:
        """Returns once the status has the caller's counts by gateway and by service. Fails if it ever has more.

        `anew`: until then, the status may still have the counts of an earlier Envoy.
        """
        wanted = {service: self.counts_of(service) for service, _ in self.got} | {"": self.all}
        deadline = asyncio.get_running_loop().time() + SCENARIO_TIMEOUT
        while (counts := _counts(await api.get("/status"))) != wanted:
            assert anew or all(counts[name] <= wanted[name] for name in counts), (counts, wanted)
            assert asyncio.get_running_loop().time() < deadline, (counts, wanted)
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.http.aclose()


def _counts(status: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Returns the numbers of requests and errors by service, and of the gateway ("")."""
    rows = {row["service"]: row for row in status.get("traffic", ())}
    gateways = [row for row in status.get("gateways", ()) if "requests" in row]
    assert len(gateways) <= 1, "only one of two Envoys shows the counts of their gateway"
    rows.update(("", row) for row in gateways)
    return {name: (row.get("requests", 0), row.get("errors", 0)) for name, row in rows.items()}


@pytest.fixture
async def counting(sandbox: ScenarioSandbox, envoy: None) -> AsyncIterator[CountedGateway]:
    found = CountedGateway(sandbox)
    yield found
    await found.close()


def _envoy(gateway: ScenarioProcess) -> int:
    """Returns the process id of the gateway's newest Envoy."""
    pids = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return max(map(int, pids))


async def _register(api: JsonApi, service: str, found: InstanceServer) -> None:
    await api.put(f"/services/{service}/instances/{found.id}", port=found.port, address="127.0.0.1", ttl=None)


async def test_requests_and_errors_are_counted_as_callers_saw_them_and_not_by_tries(
    counting: CountedGateway,
) -> None:
    await counting.start_registry()
    await counting.start_gateway()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(counting.sandbox.url))
        servers = [await stack.enter_async_context(running_instance(f"o{n}")) for n in range(3)]
        for server in servers:
            await _register(api, "orders", server)
        await _register(api, "empty", servers[0])
        await counting.wait_for_status("orders")
        await counting.wait_for_status("empty")
        await counting.call("orders", 20)
        for server in servers:
            server.answer_status = b"503 Service Unavailable"
        before = sum(len(server.calls) for server in servers)
        await counting.call("orders", 7)
        assert sum(len(server.calls) for server in servers) > before + 7, "no request was retried"
        await api.delete("/services/empty/instances/o0")
        await counting.wait_for_status("empty", 503)
        await counting.call("empty", 30)
        await counting.call("nowhere", 3)
        assert counting.counts_of("orders")[1] == 7
        assert counting.counts_of("empty")[1] >= 30
        await counting.wait_for_counts(api)

        status = await api.get("/status")
        (gateway,) = status["gateways"]
        assert 0 < gateway["p50"] <= gateway["p99"] < SCENARIO_TIMEOUT
        orders = next(row for row in status["traffic"] if row["service"] == "orders")
        assert 0 < orders["p50"] <= orders["p99"] < SCENARIO_TIMEOUT
        metrics = (await api.http.get(f"{counting.sandbox.url}/metrics")).text
        requests, errors = counting.counts_of("empty")
        assert f'adsum_gateway_service_requests_total{{gateway="gw",service="empty"}} {requests}.0' in metrics
        assert f'adsum_gateway_service_errors_total{{gateway="gw",service="empty"}} {errors}.0' in metrics
        assert f'adsum_gateway_requests_total{{gateway="gw"}} {counting.all[0]}.0' in metrics
        assert "adsum-" not in metrics, "clusters of Envoy's own are no services"

        command = counting.sandbox.adsum("status")
        assert await command.wait() == 0
        rows = [line.split() for line in command.stdout.splitlines()]
        assert ["SERVICE", "REQUESTS", "ERRORS", "P50", "P99"] in rows
        assert ["empty", str(requests), str(errors)] in [row[:3] for row in rows]


async def test_a_restarted_registry_counts_nothing_twice_and_a_new_envoy_starts_from_zero(
    counting: CountedGateway,
) -> None:
    node = await counting.start_registry()
    gateway = await counting.start_gateway()
    async with running_instance("o1") as server, JsonApi(counting.sandbox.url) as api:
        await _register(api, "orders", server)
        await counting.wait_for_status("orders")
        await counting.call("orders", 10)
        await counting.wait_for_counts(api)
        await node.stop(signal.SIGKILL)
        await counting.call("orders", 10)
        await counting.start_registry()
        await _register(api, "orders", server)
        await counting.call("orders", 5)
        await counting.wait_for_counts(api)

        counting.got.clear()
        gateway.send_signal(signal.SIGHUP)
        await gateway.wait_for_output("reloaded")
        await counting.call("orders", 10)
        await counting.wait_for_counts(api, anew=True)

        counting.got.clear()
        os.kill(_envoy(gateway), signal.SIGKILL)
        await gateway.wait_for_output("Envoy serves again")
        await counting.wait_for_status("orders")
        await counting.call("orders", 4)
        await counting.wait_for_counts(api, anew=True)


async def test_the_node_that_a_gateway_is_connected_to_shows_its_counts(counting: CountedGateway) -> None:
    port = counting.sandbox.port()
    serve = ["-m", "adsum", "serve", "--listen", f"127.0.0.1:{port}", "--xds", counting.xds[1], "--store", "memory:"]
    nodes = [await counting.start_registry(), counting.sandbox.run("other", *serve)]
    await nodes[1].wait_for_output("listens on")
    async with AsyncExitStack() as stack:
        urls = [counting.sandbox.url, f"http://127.0.0.1:{port}"]
        api = [await stack.enter_async_context(JsonApi(url)) for url in urls]
        server = await stack.enter_async_context(running_instance("o1"))
        for node_api in api:
            await _register(node_api, "orders", server)
        await counting.start_gateway(*counting.xds)
        await counting.wait_for_status("orders")
        await counting.call("orders", 10)
        (connected,) = [n for n, node_api in enumerate(api) if (await node_api.get("/status")).get("gateways")]
        other = 1 - connected
        await counting.wait_for_counts(api[connected])
        assert _counts(await api[other].get("/status")) == {}
        await nodes[connected].stop(signal.SIGKILL)
        await counting.call("orders", 5)
        await counting.wait_for_counts(api[other])
