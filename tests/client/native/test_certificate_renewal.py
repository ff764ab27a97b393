"""The certificate of a host is renewed from half of its life on, in the background, with the same key."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest

from adsum.certificates.authority import LIFETIMES, Authority
from adsum.certificates.pairs import read_pair
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.client.client import Client
from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.client.native.certificate_renewal import (
    FIRST_LOOK_DELAY,
    LOOK_INTERVAL,
    LOOK_JITTER,
    is_renewal_due,
    renew_certificate,
    renew_if_due,
)
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid
from tests.client.secure_node import OTHER_TOKEN, TOKEN, Answer, SecureNode, problem, secure_node
from tests.client.stub_node import until
from tests.support.fakes import FakeClock

LIFE = LIFETIMES[TokenRole.CLIENT]


class RenewingNode:
    """A secure node that signs certificates, and a host that has joined it."""

    def __init__(self, node: SecureNode, authority: Authority, folder: CredentialsFolder) -> None:
        self.node = node
        self.authority = authority
        self.folder = folder
        self.key = new_key()
        node.answers["POST /api/v1/certificate"] = self.certify

    def join(self, age: float) -> RegistryCredentials:
        """Writes a folder with a certificate that was signed `age` seconds ago."""
        credentials = RegistryCredentials(
            (self.node.url,),
            name="web1",
            authority=self.authority.certificate_pem().decode(),
            authority_hash=self.authority.hash,
            token=TOKEN,
        )
        certificate = self.sign(create_request(self.key, "web1"), time.time() - age)
        self.folder.write(credentials, certificate, encode_key(self.key).decode())
        return self.folder.read()

    def sign(self, request: bytes, now: float) -> str:
        return self.authority.sign(request, name="web1", token_id="0" * 16, role=TokenRole.CLIENT, now=now).decode()

    def certify(self, body: bytes) -> Answer:

        certificate = self.sign(json.loads(body)["certificate_request"].encode(), time.time())
        return 200, {"certificate": certificate, "authority": self.authority.certificate_pem().decode()}

    @property
    def renewals(self) -> int:
        return sum(request == "POST /api/v1/certificate" for request, _ in self.node.requests)


@pytest.fixture
async def renewing(tmp_path: Path) -> AsyncIterator[RenewingNode]:
    authority = Authority.create(time.time() - LIFE)
    async with secure_node(authority, tmp_path) as node:
        yield RenewingNode(node, authority, CredentialsFolder(tmp_path / "joined"))


class WallClock(FakeClock):
    """A fake clock whose wall time is real."""

    def wall(self) -> float:
        return time.time()


async def advance_until(clock: FakeClock, fact: Callable[[], object]) -> None:
    async with asyncio.timeout(40.0):
        while not fact():
            await clock.advance(1.0)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("age", "due"), [(0.0, False), (0.4 * LIFE, False), (0.6 * LIFE, True), (1.1 * LIFE, True)])
async def test_a_renewal_is_due_from_half_of_the_life_on(renewing: RenewingNode, age: float, due: bool) -> None:
    assert is_renewal_due(renewing.join(age), time.time()) is due


async def test_a_long_running_client_renews_an_expired_certificate(renewing: RenewingNode) -> None:
    joined, clock = renewing.join(1.1 * LIFE), WallClock()
    before = renewing.folder.read()
    assert is_renewal_due(before, time.time())
    async with Client(credentials=joined.folder, cache=False, clock=clock, rng=Random(1)) as client:
        assert client.api
        await advance_until(clock, lambda: renewing.renewals)
        await until(lambda: not is_renewal_due(joined, time.time()))
    assert joined.key is not None
    assert joined.key.read_bytes() == encode_key(renewing.key)


async def test_a_program_with_another_token_renews_by_the_token_of_the_host(
    renewing: RenewingNode, tmp_path: Path
) -> None:
    joined, clock, token_file = renewing.join(0.6 * LIFE), WallClock(), tmp_path / "token"
    token_file.write_text(OTHER_TOKEN)
    token_file.chmod(0o600)
    renewing.node.tokens = {TOKEN, OTHER_TOKEN}
    async with Client(
        credentials=joined.folder, token_file=token_file, cache=False, clock=clock, rng=Random(1)
    ) as client:
        await client.api.services()
        await advance_until(clock, lambda: renewing.renewals)
        await until(lambda: not is_renewal_due(joined, time.time()))
    assert renewing.node.requests == [
        ("GET /api/v1/services", f"Bearer {OTHER_TOKEN}"),
        ("POST /api/v1/certificate", f"Bearer {TOKEN}"),
    ]


async def test_a_host_that_joins_again_during_a_renewal_keeps_its_new_certificate(renewing: RenewingNode) -> None:
    renewing.join(0.6 * LIFE)

    def join_again(body: bytes) -> Answer:
        answer = renewing.certify(body)
        renewing.key = new_key()
        renewing.join(0.0)
        return answer

    renewing.node.answers["POST /api/v1/certificate"] = join_again
    with pytest.raises(Invalid, match="does not belong to the certificate"):
        await renew_if_due(renewing.folder.path, time.time(), Random(1))
    pair = read_pair(renewing.folder.path / "client.pem", renewing.folder.path / "client.key")
    assert pair.key == encode_key(renewing.key)


async def test_a_short_command_renews_nothing(renewing: RenewingNode) -> None:
    joined, clock = renewing.join(1.1 * LIFE), WallClock()
    async with Client(credentials=joined.folder, cache=False, clock=clock, rng=Random(1)) as client:
        await clock.advance(FIRST_LOOK_DELAY * (1 - LOOK_JITTER) - 1.0)
        await client.api.services()
    assert not renewing.renewals


async def test_a_failure_is_logged_once_and_tried_again(
    renewing: RenewingNode, caplog: pytest.LogCaptureFixture
) -> None:
    joined, clock = renewing.join(0.6 * LIFE), WallClock()
    renewing.node.answers["POST /api/v1/certificate"] = lambda _: (422, problem(422, "no key is here"))
    caplog.set_level(logging.WARNING)
    async with Client(credentials=joined.folder, cache=False, clock=clock, rng=Random(1)) as client:
        assert client.api
        for expected in (1, 2, 3):
            await advance_until(clock, lambda expected=expected: renewing.renewals >= expected)  # type: ignore[misc]
        renewing.node.answers["POST /api/v1/certificate"] = renewing.certify
        await clock.advance(LOOK_INTERVAL * (1 + LOOK_JITTER))
        await advance_until(clock, lambda: not is_renewal_due(joined, time.time()))
    assert caplog.text.count("not renewed yet, trying again: the registry refused (422): no key is here") == 1


async def test_a_certificate_for_another_key_is_not_kept(renewing: RenewingNode) -> None:
    joined = renewing.join(0.6 * LIFE)
    assert joined.certificate is not None
    before = joined.certificate.read_bytes()
    other = renewing.sign(create_request(new_key(), "web1"), time.time())
    renewing.node.answers["POST /api/v1/certificate"] = lambda _: (200, {"certificate": other, "authority": ""})
    with pytest.raises(Invalid, match="does not belong to the certificate"):
        await renew_certificate(joined, Random(1))
    assert joined.certificate.read_bytes() == before


async def test_a_host_without_a_certificate_has_to_join(renewing: RenewingNode) -> None:
    with pytest.raises(Invalid, match="have no certificate: join the registry"):
        await renew_certificate(RegistryCredentials((renewing.node.url,), folder=renewing.folder.path), Random(1))
    assert not renewing.renewals
