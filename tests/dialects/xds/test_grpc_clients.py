"""A real gRPC client without a proxy, on `xds:///orders`."""

from __future__ import annotations

import json
import signal
import time

from tests.dialects.xds.conftest import Registry
from tests.scenarios.processes import Asking, Child, until

PEER = ("-m", "tests.dialects.xds.grpc_peer")


class Client:
    """Calls for ever; what it was answered last is what counts."""

    def __init__(self, registry: Registry, service: str) -> None:
        bootstrap = {
            "xds_servers": [{"server_uri": registry.xds, "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": "caller"},
        }
        self._child = registry.place.run(
            "caller", *PEER, "call", f"xds:///{service}", GRPC_XDS_BOOTSTRAP_CONFIG=json.dumps(bootstrap)
        )

    @property
    def count(self) -> int:
        return len(self._child.out.splitlines())

    def answers(self, since: int) -> set[str]:
        """The whole ones after so many."""
        return set(self._child.out.splitlines()[since:-1])

    async def next(self, count: int) -> set[str]:
        """The answers to as many further calls."""
        before = self.count
        await until(
            lambda: self.count >= before + count + 1, lambda: self._child.out[-500:] + self._child.errors[-3000:]
        )
        return set(self._child.out.splitlines()[before + 1 : before + 1 + count])

    async def answered_by(self, *names: str) -> None:
        """Return once these are the ones that answer."""
        deadline = time.monotonic() + 30.0
        while (found := await self.next(12)) != set(names):
            assert time.monotonic() < deadline, found


async def _server(registry: Registry, asking: Asking, name: str) -> Child:
    server = registry.place.run(name, *PEER, "serve", name)
    await until(lambda: "\n" in server.out)
    await _register(asking, name, server)
    return server


async def _register(asking: Asking, name: str, server: Child) -> None:
    port = int(server.out.splitlines()[0])
    await asking.put(f"/services/orders/instances/{name}", port=port, address="127.0.0.1", scheme="grpc", ttl=600)


async def test_it_follows_who_comes_drains_and_goes_and_outlives_the_registry(registry: Registry) -> None:
    node = await registry.start()
    async with Asking(registry.place.url) as asking:
        a = await _server(registry, asking, "a")
        client = Client(registry, "orders")
        await client.answered_by("a")
        b = await _server(registry, asking, "b")
        await client.answered_by("a", "b")
        body = {"status": "draining", "reason": "test", "wait": 20.0}
        assert "unaware" not in await asking.put("/services/orders/instances/b/override", **body)
        assert await client.next(50) == {"a"}
        await b.end()
        assert await client.next(20) == {"a"}
        (view,) = (await asking.get("/status"))["gateways"]
        assert view["client"].startswith("gRPC")
        await node.end(signal.SIGKILL)
        killed = client.count
        assert await client.next(20) == {"a"}
        await registry.start()
        while not (await asking.get("/status")).get("gateways"):
            assert await client.next(5) == {"a"}
        await _server(registry, asking, "c")
        await client.next(20)
        assert client.answers(killed) == {"a"}, "it may come back yet"
        await _register(asking, "a", a)
        body = {"status": "draining", "reason": "test", "wait": 20.0}
        assert "unaware" not in await asking.put("/services/orders/instances/a/override", **body)
        assert await client.next(50) == {"c"}, "who leaves is heard of at once"
        # It calls c alone, so it has taken whatever the registry said while that knew of nobody.
        assert client.answers(killed) == {"a", "c"}


async def test_an_unknown_service_fails_at_once(registry: Registry) -> None:
    await registry.start()
    began = time.monotonic()
    client = Client(registry, "nobody")
    (answer,) = await client.next(1)
    assert answer.startswith("UNAVAILABLE")
    assert "nobody" in answer, "grpc's own words name the service"
    assert time.monotonic() - began < 10.0, "not after the 15 s that gRPC waits for what never comes"
