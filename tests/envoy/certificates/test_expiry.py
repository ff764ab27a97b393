"""Warnings before the certificates of a gateway expire."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from adsum.certificates.expiry import CertificateLife
from adsum.config.gateway import GatewayConfig
from adsum.envoy.certificates import expiry
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets, read_secrets
from adsum.envoy.registry_access import registry_access
from tests.envoy.plans import plan_for
from tests.envoy.secure_registry import SecureRegistry

DAY = 86_400.0


async def test_each_stage_of_a_certificate_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry, "EXPIRY_POLL_INTERVAL", 0.0)
    polls = asyncio.Semaphore(0)
    ends = [time.time() + 6.0 * DAY]

    def lives() -> list[CertificateLife]:
        polls.release()
        return [CertificateLife("of the listeners", 0.0, ends[0], "write a new one")]

    watching = asyncio.create_task(expiry.watch_expiry(lives, Random(1)))
    for _ in range(3):
        await polls.acquire()
    ends[0] = time.time() - 60.0
    for _ in range(3):
        await polls.acquire()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    first, second = (message.partition(", at ")[0].partition(" at ")[0] for message in caplog.messages)
    assert first == "the certificate of the listeners expires in 6 days"
    assert second == "the certificate of the listeners expired"


def test_a_gateway_without_certificates_has_no_lives() -> None:
    assert GatewaySecrets().lives(plan_for()) == []


def test_a_certificate_that_this_gateway_renews_is_told_from_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SecureRegistry().join(tmp_path / "joined", xds="10.0.0.5:23787", url="https://10.0.0.5:23786")
    monkeypatch.setenv("ADSUM_CREDENTIALS", str(folder.path))
    nodes, credentials = registry_access(GatewayConfig(), "https://10.0.0.5:23786")
    plan = plan_for(*nodes, xds_credentials=credentials)
    own, authority = read_secrets(plan, tmp_path).lives(plan)
    assert (own.name, own.is_renewed) == ("for the registry", True)
    assert (authority.name, authority.is_renewed) == ("of the registry's authority", False)
    assert authority.expires - own.expires > 9 * 365 * DAY
