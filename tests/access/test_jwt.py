"""Callers with JWTs: what is accepted, for how long, and how keys are read."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.access import jwt as jwts
from adsum.access.jwk_set import JwkSetError
from adsum.access.jwt import JWT_LEEWAY, MAX_JWT_LENGTH, REFRESH_INTERVAL, RETRY_INTERVAL, JwtIdentities
from adsum.access.settings import AccessSettings
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.errors import Invalid, StoreUnavailable, Unauthenticated
from tests.access.issuers import AUDIENCE, ISSUER, NOW, claims, jwk, jwk_set, private_key, settle, sign, use_one_thread
from tests.core.access.principals import attempt, scopes
from tests.core.identity_json import json_values
from tests.support.fakes import FakeClock

URL = "https://login.example.org/keys"
SETTINGS = AccessSettings(
    jwt_issuer=ISSUER,
    jwt_audience=AUDIENCE,
    jwt_keys=URL,
    jwt_scopes=("groups=team-a=write:team-a-*", "groups=team-*=read:*", "scope=adsum:operate=operate:x"),
)


class Issuer:
    """An issuer and the verifier of its JWTs. Keys are read when the test says so."""

    def __init__(self, *keys: dict[str, Any], settings: AccessSettings = SETTINGS) -> None:
        self.body = jwk_set(*(keys or (jwk("p256", kid="k1"),)))
        self.error: Exception | None = None
        self.fetched: list[str] = []
        self.changes = 0
        self.clock = FakeClock()
        self.identities = JwtIdentities(settings, self.clock, self._changed, fetch=self._fetch)
        with suppress(RuntimeError):  # Tests without a loop read the keys before anything else happens.
            use_one_thread()

    def _changed(self) -> None:
        self.changes += 1

    def _fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if self.error is not None:
            raise self.error
        return self.body

    def refusal(self, token: str) -> Unauthenticated:
        with pytest.raises(Unauthenticated) as refused:
            self.identities.identify(token)
        return refused.value


@pytest.fixture
async def issuer() -> Issuer:
    made = Issuer()
    await made.identities.load()
    return made


async def test_a_jwt_is_the_principal_that_it_names(issuer: Issuer) -> None:
    token = sign()
    principal = issuer.identities.identify(token)
    assert (principal.name, principal.method, principal.is_proven) == ("jwt:ann@login.example.org", "jwt", True)
    assert principal.scopes == scopes("write:team-a-*", "read:*")
    assert principal.expires == NOW + 600 + JWT_LEEWAY
    assert (principal.token_id, principal.secret_id) == ("", "")
    assert issuer.identities.identify(token) is principal


@pytest.mark.parametrize(
    ("changes", "given_scopes"),
    [
        ({"groups": None}, []),
        ({"groups": "team-b other"}, ["read:*"]),
        ({"groups": [], "scope": "openid adsum:operate"}, ["operate:x"]),
        ({"groups": {"team-a": 1}}, []),
        ({"groups": 7}, []),
    ],
)
async def test_claims_give_scopes(issuer: Issuer, changes: dict[str, Any], given_scopes: list[str]) -> None:
    assert issuer.identities.identify(sign(**changes)).scopes == scopes(*given_scopes)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("rsa", "RS256"),
        ("rsa", "RS512"),
        ("rsa", "PS256"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("p521", "ES512"),
        ("ed25519", "EdDSA"),
    ],
)
async def test_every_asymmetric_algorithm_is_accepted(kind: str, algorithm: str) -> None:
    issuer = Issuer(jwk(kind, kid="k1"))
    await issuer.identities.load()
    token = sign(kind, algorithm)
    assert issuer.identities.identify(token).name == "jwt:ann@login.example.org"
    head, payload, signature = token.split(".")
    flipped = bytearray(base64.urlsafe_b64decode(signature + "=="))
    flipped[5] ^= 1
    assert issuer.refusal(f"{head}.{payload}.{_encoded(bytes(flipped))}").reason == "wrong-credentials"


def _encoded(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def _forged(header: Any, body: Any, signature: bytes = b"x") -> str:
    return ".".join([_encoded(json.dumps(header).encode()), _encoded(json.dumps(body).encode()), _encoded(signature)])


async def test_symmetric_algorithms_and_none_are_refused_though_the_key_is_public() -> None:
    issuer = Issuer(jwk("rsa", kid="k1"), {"kty": "oct", "k": _encoded(b"s" * 64), "kid": "k2"})
    await issuer.identities.load()
    for secret, id in ((issuer.body, "k1"), (b"s" * 64, "k1"), (b"s" * 64, "k2")):
        for algorithm in ("HS256", "HS384", "HS512"):
            unsigned = _forged({"alg": algorithm, "kid": id}, claims()).rpartition(".")[0]
            signature = hmac.digest(secret, unsigned.encode(), f"sha{algorithm[2:]}")
            assert issuer.refusal(f"{unsigned}.{_encoded(signature)}").reason == "wrong-credentials"
    for algorithm in ("none", "None", "", "RS256", "HS256"):
        for signature in (b"", b"x"):
            token = _forged({"alg": algorithm, "kid": "k1", "typ": "JWT"}, claims(), signature)
            assert issuer.refusal(token).reason in ("wrong-credentials", "malformed")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example.org"}, "wrong-credentials"),
        ({"iss": ISSUER + "/"}, "wrong-credentials"),
        ({"iss": None}, "wrong-credentials"),
        ({"aud": "another"}, "wrong-credentials"),
        ({"aud": ["a", "b"]}, "wrong-credentials"),
        ({"aud": []}, "wrong-credentials"),
        ({"aud": None}, "wrong-credentials"),
        ({"exp": None}, "wrong-credentials"),
        ({"sub": None}, "wrong-credentials"),
        ({"exp": NOW - JWT_LEEWAY}, "expired"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": 1e300}, "malformed"),
        ({"nbf": NOW + JWT_LEEWAY + 1}, "expired"),
        ({"nbf": "x"}, "malformed"),
        ({"sub": ""}, "malformed"),
        ({"sub": "a\nb"}, "malformed"),
        ({"sub": "\u202e"}, "malformed"),
        ({"sub": "a" * 5_000}, "malformed"),
    ],
)
async def test_claims_that_are_missing_or_wrong(issuer: Issuer, changes: dict[str, Any], reason: str) -> None:
    assert issuer.refusal(sign(**changes)).reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["other", AUDIENCE]},
        {"nbf": NOW + JWT_LEEWAY},
        {"iat": NOW + 10_000},
        {"exp": NOW - JWT_LEEWAY + 1},
        {"exp": NOW + 60.5},
    ],
)
async def test_claims_that_are_accepted(issuer: Issuer, changes: dict[str, Any]) -> None:
    assert issuer.identities.identify(sign(**changes)).name == "jwt:ann@login.example.org"


async def test_a_cached_jwt_expires(issuer: Issuer) -> None:
    token = sign()
    issuer.identities.identify(token)
    issuer.clock.jump(600.0 + JWT_LEEWAY - 0.1)
    issuer.identities.identify(token)
    issuer.clock.jump(0.1)
    assert issuer.refusal(token).reason == "expired"
    assert issuer.refusal(token).reason == "expired"


async def test_a_jwt_with_critical_headers_is_refused(issuer: Issuer) -> None:
    for headers in ({"kid": "k1", "crit": ["x"], "x": 1}, {"kid": "k1", "crit": []}):
        assert issuer.refusal(sign(headers=headers)).reason == "malformed"


async def test_the_key_that_a_jwt_brings_along_is_not_used(issuer: Issuer) -> None:
    headers = {"kid": "k1", "jwk": jwk("p256:evil"), "jku": "https://evil.example/keys", "x5u": "https://evil.example"}
    assert issuer.refusal(sign("p256:evil", headers=headers)).reason == "wrong-credentials"
    assert issuer.fetched == [URL]


async def test_a_jwt_without_the_id_of_its_key_is_tried_with_few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(jwk("p256:other"), jwk("rsa"), jwk("p256", kid="k1"))
    await issuer.identities.load()
    assert issuer.identities.identify(sign(headers={})).name == "jwt:ann@login.example.org"
    monkeypatch.setattr(jwts, "MAX_TRIED_KEYS", 1)
    assert "kid" in str(issuer.refusal(sign(headers={}, sub="bob")))


async def test_the_name_of_a_principal_is_never_that_of_a_token(issuer: Issuer) -> None:
    for subject in ("admin", "registry", "anonymous", "team-a", "a@b", "x" * 200):
        name = issuer.identities.identify(sign(sub=subject)).name
        assert name.startswith("jwt:")
        assert len(name) <= 128


async def test_the_issuer_may_be_no_url() -> None:
    issuer = Issuer(settings=AccessSettings(jwt_issuer="corp", jwt_audience=AUDIENCE, jwt_keys=URL))
    await issuer.identities.load()
    principal = issuer.identities.identify(sign(iss="corp"))
    assert (principal.name, principal.scopes) == ("jwt:ann@corp", NO_SCOPES)


# Bytes of any kind


@given(st.text(max_size=60))
def test_any_text_is_refused(text: str) -> None:
    issuer = _loaded()
    assert issuer.refusal(text).reason == "malformed"


@given(json_values, json_values, st.binary(max_size=20))
def test_any_header_and_claims_are_refused(header: Any, body: Any, signature: bytes) -> None:
    error = _loaded().refusal(_forged(header, body, signature))
    assert error.reason in ("malformed", "wrong-credentials")


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "groups"]), json_values))
def test_signed_claims_of_any_shape_are_accepted_or_refused(changes: dict[str, Any]) -> None:
    token = pyjwt.encode({}, private_key("p256"), "ES256", headers={"kid": "k1"})
    body = {**claims(), **changes}
    token = pyjwt.PyJWS().encode(json.dumps(body).encode(), private_key("p256"), "ES256", headers={"kid": "k1"})
    result = attempt(lambda: _loaded().identities.identify(token))
    if not isinstance(result, Unauthenticated):
        assert body["iss"] == ISSUER
        assert body["aud"] == AUDIENCE or AUDIENCE in body["aud"]


@pytest.mark.parametrize(
    "text",
    [
        "." * 3,
        "..",
        "a.b.c",
        "e30.e30.e30",
        "\u00e9.a.b",
        "x" * (MAX_JWT_LENGTH + 1),
        f"{_encoded(b'[' * 12_000)}.e30.e30",
        f"{_encoded(b'9' * 10_000)}.e30.e30",
        _forged({"alg": ["ES256"], "kid": "k1"}, {}),
        _forged({"alg": {"a": 1}, "kid": "k1"}, {}),
        _forged({"alg": "ES256", "kid": ["k1"]}, {}),
        _forged([], {}),
        _forged({"alg": "ES256", "b64": False, "kid": "k1"}, claims()),
    ],
)
def test_strange_texts_are_refused(text: str) -> None:
    assert _loaded().refusal(text).reason in ("malformed", "wrong-credentials")


def test_a_changed_character_is_refused() -> None:
    issuer, token, rng = _loaded(), sign(), random.Random(3)
    for _ in range(300):
        at = rng.randrange(len(token) - 1)  # The last character has bits that encode nothing.
        changed = token[:at] + rng.choice("ABCDEFGHabcdefgh0123-_.=") + token[at + 1 :]
        if changed != token:
            issuer.refusal(changed)


def _loaded() -> Issuer:
    issuer = Issuer()
    asyncio.run(issuer.identities.load())
    return issuer


# Keys


async def test_before_the_keys_are_read_the_caller_is_asked_to_try_again() -> None:
    issuer = Issuer()
    with pytest.raises(StoreUnavailable, match="not loaded yet"):
        issuer.identities.identify(sign())


async def test_a_registry_starts_while_the_issuer_is_away_and_reads_the_keys_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issuer = Issuer()
    issuer.error = JwkSetError("https://login.example.org/keys answered 503")
    with caplog.at_level(logging.WARNING, "adsum.access"):
        await issuer.identities.start()
        await settle()
        await issuer.clock.advance(RETRY_INTERVAL)
        await settle()
        assert len(issuer.fetched) == 2
        assert [record.levelname for record in caplog.records] == ["ERROR"], "logged once, not at each attempt"
        issuer.error = None
        await issuer.clock.advance(RETRY_INTERVAL)
        await settle()
    assert issuer.identities.identify(sign()).name == "jwt:ann@login.example.org"
    await issuer.identities.stop()
    await issuer.identities.stop()


async def test_the_last_keys_stay_while_the_issuer_is_away(issuer: Issuer) -> None:
    token = sign()
    for error in (JwkSetError("away"), RuntimeError("a bug")):
        issuer.error = error
        assert not await issuer.identities.load()
        assert issuer.identities.identify(token).name == "jwt:ann@login.example.org"
        assert issuer.identities.identify(sign(sub="bob")).name == "jwt:bob@login.example.org"
    issuer.error, issuer.body = None, b"{}"
    assert not await issuer.identities.load()
    assert issuer.identities.identify(sign(sub="eve")).name == "jwt:eve@login.example.org"
    assert issuer.changes == 0


async def test_keys_are_read_again_every_few_minutes() -> None:
    issuer = Issuer()
    await issuer.identities.start()
    await settle()
    for count in range(1, 4):
        assert len(issuer.fetched) == count
        await issuer.clock.advance(REFRESH_INTERVAL)
        await settle()
    await issuer.identities.stop()


async def test_an_unknown_key_has_the_keys_read_at_most_once_in_ten_seconds() -> None:
    issuer = Issuer()
    await issuer.identities.start()
    await settle()
    newer = sign("p256:newer", headers={"kid": "k2"})
    issuer.body = jwk_set(jwk("p256", kid="k1"), jwk("p256:newer", kid="k2"))
    assert issuer.refusal(newer).reason == "wrong-credentials"
    await settle()
    assert issuer.identities.identify(newer).name == "jwt:ann@login.example.org"
    assert len(issuer.fetched) == 2
    for number in range(50):
        issuer.refusal(sign(headers={"kid": f"unknown-{number}"}))
        await settle()
    assert len(issuer.fetched) == 2
    await issuer.clock.advance(RETRY_INTERVAL)
    issuer.refusal(sign(headers={"kid": "unknown"}))
    await settle()
    assert len(issuer.fetched) == 3
    assert issuer.changes == 0
    await issuer.identities.stop()


async def test_jwts_of_a_withdrawn_key_are_refused_and_their_streams_end(issuer: Issuer) -> None:
    token = sign()
    issuer.identities.identify(token)
    issuer.body = jwk_set(jwk("p256:newer", kid="k2"))
    assert await issuer.identities.load()
    assert issuer.changes == 1
    assert issuer.refusal(token).reason == "wrong-credentials"


async def test_a_key_with_the_same_id_replaces_the_one_before(issuer: Issuer) -> None:
    token = sign()
    issuer.identities.identify(token)
    issuer.body = jwk_set(jwk("p256:newer", kid="k1"))
    await issuer.identities.load()
    assert issuer.refusal(token).reason == "wrong-credentials"


async def test_keys_of_a_file_are_known_when_it_has_started(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwk_set(jwk("p256", kid="k1")))
    settings = AccessSettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_keys=str(path))
    issuer = Issuer(settings=settings)
    await issuer.identities.start()
    assert issuer.identities.identify(sign()).name == "jwt:ann@login.example.org"
    assert issuer.fetched == []
    await issuer.identities.stop()


async def test_other_settings_count_at_once_and_keys_of_another_place_are_read(issuer: Issuer) -> None:
    token = sign()
    issuer.identities.identify(token)
    other = AccessSettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_keys=URL, jwt_scopes=("groups=team-a=admin",))
    issuer.identities.configure(other)
    assert issuer.identities.identify(token).scopes == scopes("admin")
    issuer.identities.configure(AccessSettings(jwt_issuer=ISSUER, jwt_audience="x", jwt_keys=URL))
    assert "audience x" in str(issuer.refusal(token))
    issuer.identities.configure(AccessSettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_keys=f"{URL}/2"))
    with pytest.raises(StoreUnavailable):
        issuer.identities.identify(token)
    await issuer.identities.start()
    await settle()
    assert issuer.fetched == [URL, f"{URL}/2"]
    assert issuer.identities.identify(token).scopes == NO_SCOPES
    await issuer.identities.stop()
    with pytest.raises(Invalid):
        issuer.identities.configure(AccessSettings(jwt_scopes=("x",)))


async def test_the_cache_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwts, "MAX_CACHED_JWTS", 2)
    tokens = [sign(sub=str(number)) for number in range(3)]
    first, *others = (issuer.identities.identify(token) for token in tokens)
    assert [issuer.identities.identify(token) for token in tokens[1:]] == others
    assert issuer.identities.identify(tokens[0]) is not first


async def test_no_refusal_repeats_the_jwt(issuer: Issuer) -> None:
    for token in (sign(aud="x"), sign("p256:evil"), "ey.secret.x", sign(sub="a\nb")):
        error = str(issuer.refusal(token))
        assert not any(part in error for part in token.split("."))
