"""A gateway on a host that has joined a secure registry with one line: scopes, revocation, a new line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from adsum import Client
from adsum.envoy.metrics.monitor import READY_BODY
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import ADSUM_COMMAND, ScenarioProcess, ScenarioSandbox, wait_until

RECOVERY_TIMEOUT = 90.0
"""Seconds within which a gateway must have noticed its new certificate; it takes about 20."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class SecureGateway:
    """A secure registry, and the host of a gateway."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = f"127.0.0.1:{sandbox.port()}"
        self.listen, self.monitor = (f"127.0.0.1:{sandbox.port()}" for _ in range(2))
        self.data = sandbox.folder / "data"
        self.operator = self.data / "security" / "operator"
        self.joined = sandbox.folder / "joined"
        self.http = httpx.AsyncClient(timeout=30.0, trust_env=False)

    async def start_registry(self) -> ScenarioProcess:
        return await self.sandbox.start_registry("", "--xds", self.xds, "--secure", "--data", str(self.data))

    async def adsum(self, credentials: Path, *argv: str) -> str:
        """Runs a command with the credentials in a folder. Returns its standard output."""
        child = self.sandbox.program(argv[0], *ADSUM_COMMAND, *argv, ADSUM_CREDENTIALS=str(credentials))
        assert await child.wait() == 0, child.stderr
        return child.stdout

    async def join(self, name: str, *scopes: str) -> None:
        line = self.sandbox.folder / f"line-{name}"
        line.touch(mode=0o600)
        options = [option for scope in scopes for option in ("--scope", scope)]
        line.write_text(await self.adsum(self.operator, "token", "invite", "--for", "gateway", *options))
        await self.adsum(self.joined, "join", str(line), "--name", name)

    async def start_gateway(self) -> ScenarioProcess:
        options = ["--listen", self.listen, "--monitor", self.monitor, "--concurrency", "1", "--access-log", "off"]
        gateway = self.sandbox.program(
            "gateway", *ADSUM_COMMAND, "gateway", *options, ADSUM_CREDENTIALS=str(self.joined)
        )
        await gateway.wait_for_output("listens on")
        return gateway

    async def status(self, path: str) -> int:
        return (await self.http.get(f"http://{self.listen}{path}")).status_code

    async def wait_for_status(self, path: str, status: int) -> None:
        latest = [0]

        async def poll() -> bool:
            latest[0] = await self.status(path)
            return latest[0] == status

        await wait_until_async(poll, lambda: f"{path}: {latest[0]}")

    async def ready_body(self) -> str:
        return (await self.http.get(f"http://{self.monitor}/readyz")).text


async def wait_until_async(poll: Callable[[], Awaitable[bool]], describe: Callable[[], str]) -> None:
    """Returns once `poll` returns True."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT
    while not await poll():
        assert time.monotonic() < deadline, describe()
        await asyncio.sleep(0.05)


@pytest.fixture
async def secure(sandbox: ScenarioSandbox, envoy: None) -> AsyncIterator[SecureGateway]:
    found = SecureGateway(sandbox)
    await found.start_registry()
    yield found
    await found.http.aclose()


async def test_a_gateway_sees_the_services_of_its_scopes_keeps_them_when_revoked_and_sees_more_after_a_new_line(
    secure: SecureGateway,
) -> None:
    await secure.join("edge", "read:orders")
    async with (
        Client(credentials=secure.operator, cache=False) as client,
        running_instance("o1") as orders,
        running_instance("p1") as payments,
        client.register("orders", orders.port, address="127.0.0.1", id="o1"),
        client.register("payments", payments.port, address="127.0.0.1", id="p1"),
    ):
        gateway = await secure.start_gateway()
        await secure.wait_for_status("/orders/", 200)
        assert await secure.status("/payments/") == 404

        await secure.adsum(secure.operator, "token", "revoke", "edge")

        async def is_refused() -> bool:
            return "the registry rejects this gateway" in await secure.ready_body()

        await wait_until_async(is_refused, lambda: gateway.stderr)
        assert await secure.status("/orders/") == 200
        await wait_until(lambda: "`adsum token invite --for gateway`" in gateway.stderr, lambda: gateway.stderr)

        await secure.join("edge2", "read:*")

        async def is_ready() -> bool:
            return await secure.ready_body() == READY_BODY

        await wait_until_async(is_ready, lambda: gateway.stderr)
        await secure.wait_for_status("/payments/", 200)
        assert await secure.status("/orders/") == 200
    token = (secure.joined / "token").read_text().strip()
    assert token not in gateway.stderr + gateway.stdout
