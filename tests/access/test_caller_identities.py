"""Certificates and JWTs, as the settings of a node say, also after they are read again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adsum.access.caller_identities import CallerIdentities
from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.access.settings import AccessSettings
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.errors import Invalid, Unauthenticated
from adsum.registry import Registry
from tests.access.authorities import TestAuthority
from tests.access.issuers import AUDIENCE, ISSUER, jwk, jwk_set, settle, sign, use_one_thread
from tests.access.tokens import declared, id_of, make_token, revoked
from tests.core.access.principals import scopes
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver

OWN, OTHER = TestAuthority(), TestAuthority("Corporate authority")
CERTIFICATES = AccessSettings(certificate_scopes=("spiffe://corp/*=read:*",))


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(FakeStore(), FakeClock(), RecordingObserver())
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
def access(registry: Registry) -> AccessControl:
    return AccessControl(registry, FakeClock(), NO_SCOPES, lambda *_: None)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    _write_keys(path, jwk("p256", kid="k1"))
    return path


def _write_keys(path: Path, *found: dict[str, Any]) -> None:
    path.write_bytes(jwk_set(*found))


@pytest.fixture
def jwt_settings(keys: Path) -> AccessSettings:
    return AccessSettings((), ISSUER, AUDIENCE, str(keys), ("groups=team-a=read:*",))


async def test_certificates_of_tokens_follow_the_tokens(registry: Registry, access: AccessControl) -> None:
    CallerIdentities(access, FakeClock(), AccessSettings(), OWN.pem)
    certificate = Credentials("", OWN.issue(f"spiffe://adsum/token/{id_of(1)}"))
    await registry.write(declared(make_token("team-a", 1)))
    principal = access.identify(certificate)
    assert principal.name == "team-a"
    ended: list[str] = []
    with access.session(principal, lambda: ended.append("x")):
        await registry.write(revoked("team-a"))
        with pytest.raises(Unauthenticated):
            access.identify(certificate)
        assert ended == ["x"]


async def test_other_rules_count_at_once_and_end_streams(access: AccessControl) -> None:
    identities = CallerIdentities(access, FakeClock(), CERTIFICATES, OWN.pem)
    certificate = Credentials("", OTHER.issue("spiffe://corp/a"))
    principal = access.identify(certificate)
    assert principal.scopes == scopes("read:*")
    ended: list[str] = []
    with access.session(principal, lambda: ended.append("x")):
        await identities.reload(AccessSettings(certificate_scopes=("spiffe://corp/*=write:a",)))
        assert ended == ["x"]
    assert access.identify(certificate).scopes == scopes("write:a")


async def test_settings_without_a_change_end_no_stream(access: AccessControl, jwt_settings: AccessSettings) -> None:
    settings = replace(jwt_settings, certificate_scopes=CERTIFICATES.certificate_scopes)
    identities = CallerIdentities(access, FakeClock(), settings, b"")
    await identities.start()
    ended: list[str] = []
    with (
        access.session(access.identify(Credentials(sign())), lambda: ended.append("jwt")),
        access.session(access.identify(Credentials("", OTHER.issue("spiffe://corp/a"))), lambda: ended.append("x")),
    ):
        await identities.reload(replace(settings))
        assert ended == []
        await identities.reload(replace(settings, jwt_scopes=()))
        assert sorted(ended) == ["jwt", "x"]
    await identities.stop()


async def test_reading_the_settings_again_reads_the_keys_again(
    access: AccessControl, jwt_settings: AccessSettings, keys: Path
) -> None:
    use_one_thread()
    identities = CallerIdentities(access, FakeClock(), jwt_settings)
    await identities.start()
    _write_keys(keys, jwk("p256", kid="k1"), jwk("p256:newer", kid="k2"))
    newer = Credentials(sign("p256:newer", headers={"kid": "k2"}))
    await identities.reload(jwt_settings)
    await settle()
    assert access.identify(newer).name == "jwt:ann@login.example.org"
    await identities.stop()


async def test_a_node_without_tls_takes_nobody_for_a_certificate(access: AccessControl) -> None:
    CallerIdentities(access, FakeClock(), CERTIFICATES)
    assert access.identify(Credentials("", OTHER.issue("spiffe://corp/a"))) is access.anonymous


async def test_without_an_own_authority_no_certificate_stands_for_a_token(
    registry: Registry, access: AccessControl
) -> None:
    CallerIdentities(access, FakeClock(), CERTIFICATES, b"")
    await registry.write(declared(make_token("team-a", 1)))
    with pytest.raises(Unauthenticated):
        access.identify(Credentials("", OTHER.issue(f"spiffe://adsum/token/{id_of(1)}")))


async def test_another_authority_replaces_the_first_one(registry: Registry, access: AccessControl) -> None:
    identities = CallerIdentities(access, FakeClock(), AccessSettings(), OWN.pem)
    await registry.write(declared(make_token("team-a", 1)))
    identities.authority_changed(OTHER.pem)
    uri = f"spiffe://adsum/token/{id_of(1)}"
    assert access.identify(Credentials("", OTHER.issue(uri))).name == "team-a"
    with pytest.raises(Unauthenticated):
        access.identify(Credentials("", OWN.issue(uri)))


async def test_jwts_are_switched_on_changed_and_off(access: AccessControl, jwt_settings: AccessSettings) -> None:
    identities = CallerIdentities(access, FakeClock(), CERTIFICATES)
    await identities.start()
    token = Credentials(sign())
    with pytest.raises(Unauthenticated):
        access.identify(token)
    await identities.reload(jwt_settings)
    assert access.identify(token).scopes == scopes("read:*")
    await identities.reload(replace(jwt_settings, jwt_scopes=("groups=team-a=admin",)))
    assert access.identify(token).scopes == scopes("admin")
    await identities.reload(CERTIFICATES)
    with pytest.raises(Unauthenticated):
        access.identify(token)
    await identities.stop()


async def test_jwts_are_accepted_from_the_start(access: AccessControl, jwt_settings: AccessSettings) -> None:
    identities = CallerIdentities(access, FakeClock(), jwt_settings)
    await identities.start()
    assert access.identify(Credentials(sign())).name == "jwt:ann@login.example.org"
    await identities.stop()


async def test_wrong_settings_change_nothing(access: AccessControl, jwt_settings: AccessSettings) -> None:
    identities = CallerIdentities(access, FakeClock(), jwt_settings)
    await identities.start()
    with pytest.raises(Invalid):
        await identities.reload(replace(jwt_settings, certificate_scopes=("x",)))
    with pytest.raises(Invalid):
        await identities.reload(replace(jwt_settings, jwt_audience=""))
    assert access.identify(Credentials(sign())).scopes == scopes("read:*")
    await identities.stop()
