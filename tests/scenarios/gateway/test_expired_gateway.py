"""A gateway on the day on which all certificates of its registry have expired: one command mends it."""

from __future__ import annotations

import sys

import pytest

from adsum.core.access.tokens import TokenRole
from adsum.envoy.metrics.monitor import READY_BODY
from tests.scenarios.gateway.test_secure_gateway import SecureGateway, wait_until_async
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import ADSUM_COMMAND, ScenarioProcess, ScenarioSandbox
from tests.scenarios.secure.short_lived import ShortLivedAuthority

LIFETIME = 4.0
"""Seconds until all certificates expire."""
GATEWAY = """
from adsum.client.native import request_sender
from adsum.envoy.certificates import identity_renewal
# So that the test takes less time.
request_sender.TRUST_PAUSE = 3.0
identity_renewal.LOOK_INTERVAL = identity_renewal.FIRST_RETRY_DELAY = identity_renewal.MAX_RETRY_DELAY = 3.0
from adsum.__main__ import main
main()
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


async def _start_gateway(secure: SecureGateway) -> ScenarioProcess:
    options = ["--listen", secure.listen, "--monitor", secure.monitor, "--concurrency", "1", "--access-log", "off"]
    argv = [sys.executable, "-c", GATEWAY, "gateway", *options]
    gateway = secure.sandbox.program("gateway", *argv, ADSUM_CREDENTIALS=str(secure.joined))
    await gateway.wait_for_output("listens on")
    return gateway


async def _register(secure: SecureGateway, id: str, port: int) -> None:
    options = ("--id", id, "--port", str(port), "--address", "127.0.0.1", "--ttl", "none")
    await secure.adsum(secure.operator, "register", id, *options)


async def test_a_gateway_serves_after_all_certificates_have_expired_and_one_command_at_the_registry_mends_it(
    sandbox: ScenarioSandbox, envoy: None
) -> None:
    secure = SecureGateway(sandbox)
    registry = await secure.start_registry()
    await secure.join("edge")
    async with running_instance("a1") as first, running_instance("b1") as second:
        await _register(secure, "a", first.port)
        gateway = await _start_gateway(secure)
        await secure.wait_for_status("/a/", 200)
        authority = ShortLivedAuthority(secure.data / "security", LIFETIME)
        authority.replace(secure.data / "security", "node", TokenRole.NODE)
        authority.replace(secure.joined, "client", TokenRole.GATEWAY)

        async def has_expired() -> bool:
            probe = secure.sandbox.program("ls", *ADSUM_COMMAND, "ls", ADSUM_CREDENTIALS=str(secure.joined))
            await probe.wait()
            return "expired" in probe.stderr

        await wait_until_async(has_expired, lambda: gateway.stderr)
        assert await secure.status("/a/") == 200

        # A restart of the node ends the gateway's stream, and a new one fails.
        await registry.stop()
        await secure.start_registry()
        await wait_until_async(lambda: _is_alone(secure), lambda: gateway.stderr)
        assert await secure.status("/a/") == 200

        renew = ("init", "--renew", "--node", "n1", "--data", str(secure.data))
        await secure.adsum(secure.operator, *renew)

        async def is_ready() -> bool:
            return await secure.ready_body() == READY_BODY

        await wait_until_async(is_ready, lambda: gateway.stderr)
        await _register(secure, "b", second.port)
        await secure.wait_for_status("/b/", 200)
        assert await secure.status("/a/") == 200
        assert gateway.process.poll() is None
    await secure.http.aclose()


async def _is_alone(secure: SecureGateway) -> bool:
    return await secure.ready_body() != READY_BODY
