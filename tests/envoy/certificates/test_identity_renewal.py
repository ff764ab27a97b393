"""The renewal of a gateway's certificate by its registry, proved by the token of its host."""

from __future__ import annotations

import asyncio
import logging
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from adsum.certificates.authority import LIFETIMES, token_id_of
from adsum.certificates.pairs import KeyPair, read_pair
from adsum.certificates.requests import create_request, decode_key
from adsum.client.native.certificate_renewal import renew_if_due
from adsum.config.serve import ServeConfig
from adsum.core.access.tokens import TokenRole, parse_token
from adsum.core.errors import AdsumError
from adsum.envoy.certificates import identity_renewal
from adsum.envoy.certificates.identity_renewal import keep_identity_valid, obtain_certificate
from adsum.node_security.node_files import load_authority
from adsum.node_security.security_folder import SecurityFolder
from tests.support.registry_daemon import RunningDaemon

LIFE = LIFETIMES[TokenRole.GATEWAY]
DAY = 86_400.0


class JoinedGateway:
    """A credentials folder that a secure registry accepts."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.path = folder
        authority = load_authority(SecurityFolder(data))
        assert authority is not None
        self.authority = authority
        shutil.copytree(data / "security" / "operator", folder)
        self.token = parse_token((folder / "token").read_text().strip())

    def age(self, seconds: float) -> KeyPair:
        """Gives it a certificate that was signed so long ago."""
        key = decode_key("key", (self.path / "client.key").read_bytes())
        request, signed_at = create_request(key, "edge"), time.time() - seconds
        chain = self.authority.sign(request, name="edge", token_id=self.token.id, role=TokenRole.GATEWAY, now=signed_at)
        (self.path / "client.pem").write_bytes(chain)
        return self.pair

    @property
    def pair(self) -> KeyPair:
        return read_pair(self.path / "client.pem", self.path / "client.key")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    config = ServeConfig(
        listen="127.0.0.1:0", xds="127.0.0.1:0", store="memory:", node="n1", secure=True, data=str(tmp_path / "data")
    )
    running = RunningDaemon(config)
    yield running
    running.stop()


@pytest.fixture
def gateway(daemon: RunningDaemon, tmp_path: Path) -> JoinedGateway:
    return JoinedGateway(tmp_path / "joined", tmp_path / "data")


async def test_a_certificate_is_renewed_from_half_of_its_life_on_with_the_same_key(gateway: JoinedGateway) -> None:
    before = gateway.age(LIFE / 2 - DAY)
    assert not await renew_if_due(gateway.path, time.time(), Random(1))
    assert gateway.pair == before
    before = gateway.age(LIFE / 2 + DAY)
    assert await renew_if_due(gateway.path, time.time(), Random(1))
    after = gateway.pair
    assert after.key == before.key
    assert after.leaf.serial_number != before.leaf.serial_number
    assert token_id_of(after.leaf) == gateway.token.id
    assert stat.S_IMODE((gateway.path / "client.pem").stat().st_mode) == 0o600


async def test_an_expired_certificate_locks_nobody_out(gateway: JoinedGateway) -> None:
    gateway.age(LIFE + DAY)
    assert await renew_if_due(gateway.path, time.time(), Random(1))
    assert gateway.pair.leaf.not_valid_after_utc.timestamp() > time.time()


async def test_a_folder_without_a_certificate_gets_one(gateway: JoinedGateway) -> None:
    for name in ("client.pem", "client.key"):
        (gateway.path / name).unlink()
    await obtain_certificate(gateway.path, Random(1))
    assert gateway.authority.has_signed(gateway.pair.leaf)
    for name in ("client.pem", "client.key"):
        assert stat.S_IMODE((gateway.path / name).stat().st_mode) == 0o600
    pair = gateway.pair
    await obtain_certificate(gateway.path, Random(1))
    assert gateway.pair == pair


async def test_without_a_registry_the_old_certificate_stays(gateway: JoinedGateway, daemon: RunningDaemon) -> None:
    before = gateway.age(LIFE + DAY)
    daemon.stop()
    with pytest.raises(AdsumError):
        await renew_if_due(gateway.path, time.time(), Random(1))
    assert gateway.pair == before


async def test_a_failure_is_logged_once_and_attempts_are_paced(
    gateway: JoinedGateway, daemon: RunningDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.age(LIFE + DAY)
    daemon.stop()
    delays: list[float] = []
    enough = asyncio.Event()

    async def sleep(delay: float) -> None:
        delays.append(delay)
        if len(delays) == 4:
            enough.set()
            await asyncio.Event().wait()

    caplog.set_level(logging.INFO, "adsum.envoy")
    renewing = asyncio.create_task(keep_identity_valid(lambda: gateway.path, Random(1), sleep))
    await enough.wait()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("the certificate for the registry is not renewed, trying again: ")
    assert all(delay >= identity_renewal.FIRST_RETRY_DELAY for delay in delays), delays
    assert gateway.token.secret not in caplog.text
