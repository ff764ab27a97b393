"""A real proxyless gRPC client of `xds:///orders`."""

from __future__ import annotations

import json
import signal
import time

from tests.dialects.xds.conftest import RegistryProcess
from tests.scenarios.processes import JsonApi, ScenarioProcess, wait_until

PEER = ("-m", "tests.dialects.xds.grpc_peer")


class GrpcCallerProcess:
    """A client that calls without end; tests look at its latest answers."""

    def __init__(self, registry: RegistryProcess, service: str) -> None:
        bootstrap = {
            "xds_servers": [{"server_uri": registry.xds, "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": "caller"},
        }
        self._child = registry.sandbox.run(
            "caller", *PEER, "call", f"xds:///{service}", GRPC_XDS_BOOTSTRAP_CONFIG=json.dumps(bootstrap)
        )

    @property
    def count(self) -> int:
        return len(self._child.stdout.splitlines())

    def answers(self, since: int) -> set[str]:
        """Returns the complete answers after the first `since`."""
        return set(self._child.stdout.splitlines()[since:-1])

    async def next(self, count: int) -> set[str]:
        """Waits for this many further answers, and returns them."""
        before = self.count
        await wait_until(
            lambda: self.count >= before + count + 1, lambda: self._child.stdout[-500:] + self._child.stderr[-3000:]
        )
        return set(self._child.stdout.splitlines()[before + 1 : before + 1 + count])

    async def answered_by(self, *names: str) -> None:
        """Returns when exactly these servers answer."""
        deadline = time.monotonic() + 30.0
        while (found := await self.next(12)) != set(names):
            assert time.monotonic() < deadline, found


async def _server(registry: RegistryProcess, api: JsonApi, name: str) -> ScenarioProcess:
    server = registry.sandbox.run(name, *PEER, "serve", name)
    await wait_until(lambda: "\n" in server.stdout)
    await _register(api, name, server)
    return server


async def _register(api: JsonApi, name: str, server: ScenarioProcess) -> None:
    port = int(server.stdout.splitlines()[0])
    await api.put(f"/services/orders/instances/{name}", port=port, address="127.0.0.1", scheme="grpc", ttl=600)


async def test_it_follows_registrations_drains_and_deregistrations_and_outlives_the_registry(
    registry: RegistryProcess,
) -> None:
    node = await registry.start()
    async with JsonApi(registry.sandbox.url) as api:
        a = await _server(registry, api, "a")
        client = GrpcCallerProcess(registry, "orders")
        await client.answered_by("a")
        b = await _server(registry, api, "b")
        await client.answered_by("a", "b")
        body = {"status": "draining", "reason": "test", "wait": 20.0}
        assert "unacknowledged" not in await api.put("/services/orders/instances/b/override", **body)
        assert await client.next(50) == {"a"}
        await b.stop()
        assert await client.next(20) == {"a"}
        (view,) = (await api.get("/status"))["gateways"]
        assert view["client"].startswith("gRPC")
        await node.stop(signal.SIGKILL)
        killed = client.count
        assert await client.next(20) == {"a"}
        await registry.start()
        while not (await api.get("/status")).get("gateways"):
            assert await client.next(5) == {"a"}
        await _server(registry, api, "c")
        await client.next(20)
        assert client.answers(killed) == {"a"}, "`a` may be registered again"
        await _register(api, "a", a)
        body = {"status": "draining", "reason": "test", "wait": 20.0}
        assert "unacknowledged" not in await api.put("/services/orders/instances/a/override", **body)
        assert await client.next(50) == {"c"}, "an instance that leaves is pushed at once"
        # It calls only c, so it has applied everything that the registry sent while its catalog was empty.
        assert client.answers(killed) == {"a", "c"}


async def test_an_unknown_service_fails_at_once(registry: RegistryProcess) -> None:
    await registry.start()
    began = time.monotonic()
    client = GrpcCallerProcess(registry, "nobody")
    (answer,) = await client.next(1)
    assert answer.startswith("UNAVAILABLE")
    assert "nobody" in answer, "the error of gRPC names the service"
    assert time.monotonic() - began < 10.0, "before the 15 s after which gRPC gives up on a missing resource"
