"""The log of a gateway while it waits for Envoy to serve."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import pytest

from adsum.envoy.admin import AdminUnavailable, ListenerStates
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets
from adsum.envoy.process import envoy_instance
from adsum.envoy.process.envoy_instance import EnvoyInstance
from tests.envoy.plans import plan_for


class FakeEnvoyProcess:
    running = True
    refusal = ""


class SlowAdmin:
    """An admin interface that answers from the third question about the registry on, and is ready after the fifth."""

    def __init__(self) -> None:
        self.questions = 0

    async def listeners(self) -> ListenerStates:
        if self.questions < 5:
            raise AdminUnavailable("Envoy does not answer: it starts")
        return ListenerStates(frozenset({("127.0.0.1", 8080)}), ())

    async def is_live(self) -> bool:
        return True

    async def is_registry_connected(self) -> bool:
        self.questions += 1
        if self.questions < 3:
            raise AdminUnavailable("Envoy does not answer: it starts")
        return False


async def test_each_new_reason_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def no_answer(registry: object, identity: object) -> str:
        return "connection refused"

    monkeypatch.setattr(envoy_instance, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(envoy_instance, "WAIT_REPORT_INTERVAL", 0.0)
    monkeypatch.setattr(envoy_instance, "unreachable_reason", no_answer)
    caplog.set_level(logging.WARNING, "adsum.envoy")
    plan = plan_for(("127.0.0.1", 1), listen=["127.0.0.1:8080"])
    envoy = EnvoyInstance(
        plan,
        Path("/"),
        cast("Any", FakeEnvoyProcess()),
        cast("Any", SlowAdmin()),
        GatewaySecrets(),
        uses_last_good_config=False,
    )
    await envoy.wait_until_serving(strict=True)
    assert [record.getMessage().partition(" at ")[0] for record in caplog.records] == [
        "the gateway does not accept requests yet: Envoy does not answer: it starts",
        "the gateway does not accept requests yet: no registry answers",
    ]
    assert "`adsum join` joins a registry on another host" in caplog.messages[-1]
