"""The verifiers of certificates and JWTs follow the settings of a node."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adsum.access.caller_identities import CallerIdentities
from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.access.settings import AccessSettings
from adsum.certificates.authority import Authority
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Unauthenticated
from adsum.node_security.authorities import RegistryAuthority
from adsum.registry import Registry
from adsum.stores.memory import MemoryStore
from tests.support.fakes import FakeClock
from tests.support.observers import RecordingObserver
from tests.support.tokens import declare_token, make_token

ISSUER = "https://login.example"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def access(clock: FakeClock) -> AccessControl:
    registry = Registry(MemoryStore(), clock, RecordingObserver())
    await registry.start()
    await declare_token(registry, "web", "read:*")
    return AccessControl(registry, clock, NO_SCOPES, lambda *_: None)


def _certificate(authority: Authority, now: float, token: str) -> bytes:
    """Returns a certificate (DER) for the token of that name."""
    chain = authority.sign(
        create_request(new_key(), "x"), name=token, token_id=make_token(token)[0].id, role=TokenRole.CLIENT, now=now
    )
    return x509.load_pem_x509_certificate(chain).public_bytes(Encoding.DER)


async def test_certificates_of_the_authority_stand_for_tokens(access: AccessControl, clock: FakeClock) -> None:
    authority = Authority.create(clock.wall())
    identities = CallerIdentities(access, clock, AccessSettings(), RegistryAuthority(authority, clock.wall))
    await identities.start()
    assert access.identify(Credentials("", _certificate(authority, clock.wall(), "web"), "")).name == "web"
    with pytest.raises(Unauthenticated):
        access.identify(Credentials("", _certificate(authority, clock.wall(), "other"), ""))
    await identities.stop()


async def test_another_authority_replaces_the_first_one(access: AccessControl, clock: FakeClock) -> None:
    first, second = Authority.create(clock.wall()), Authority.create(clock.wall())
    service = RegistryAuthority(first, clock.wall)
    identities = CallerIdentities(access, clock, AccessSettings(), service)
    service.authority = second
    identities.authority_changed()
    assert access.identify(Credentials("", _certificate(second, clock.wall(), "web"), "")).name == "web"
    with pytest.raises(Unauthenticated):
        access.identify(Credentials("", _certificate(first.renewed(clock.wall()), clock.wall(), "web"), ""))


async def test_a_node_without_tls_knows_no_certificates(access: AccessControl, clock: FakeClock) -> None:
    identities = CallerIdentities(access, clock, AccessSettings(), None)
    identities.authority_changed()
    assert access.certificates is None


async def test_jwts_are_accepted_from_when_the_settings_say_so_until_they_no_longer_do(
    access: AccessControl, clock: FakeClock, tmp_path: Path
) -> None:
    key = new_key()
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [{**public, "kid": "k1", "alg": "ES256", "use": "sig"}]}))
    text = jwt.encode(
        {"iss": ISSUER, "aud": "adsum", "sub": "ann", "exp": clock.wall() + 600.0, "iat": clock.wall(), "team": "a"},
        encode_key(key),
        "ES256",
        headers={"kid": "k1"},
    )
    settings = AccessSettings(
        jwt_issuer=ISSUER, jwt_audience="adsum", jwt_keys=str(file), jwt_scopes=("team=a=read:orders",)
    )
    identities = CallerIdentities(access, clock, AccessSettings(), None)
    await identities.start()
    with pytest.raises(Unauthenticated):
        access.identify(Credentials(text, b"", ""))
    await identities.configure(settings)
    principal = access.identify(Credentials(text, b"", ""))
    assert (principal.name, principal.scopes.texts()) == ("jwt:ann@login.example", ["read:orders"])
    ended: list[int] = []
    with access.session(principal, lambda: ended.append(1)):
        await identities.configure(settings)
        assert not ended
        await identities.configure(AccessSettings())
        assert ended == [1]
    with pytest.raises(Unauthenticated):
        access.identify(Credentials(text, b"", ""))
    await identities.stop()
