"""Access control of a node: who a caller is, what is recorded of refusals, and how soon a revocation counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from adsum.access.control import LOGGED_REFUSALS_BURST, AccessControl
from adsum.access.credentials import NO_CREDENTIALS, Credentials
from adsum.access.failures import FAILURE_BURST, MAX_FAILURE_DELAY
from adsum.core.access.actions import Action
from adsum.core.access.principal import ANONYMOUS, Principal
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES
from adsum.core.errors import (
    AdsumError,
    Forbidden,
    Invalid,
    InvisibleService,
    NotOwner,
    StoreUnavailable,
    Unauthenticated,
)
from adsum.registry import Registry
from tests.access.tokens import declared, id_of, make_token, revoked, secret_of, text_of
from tests.core.access.principals import scopes
from tests.support.fakes import FakeClock, FakeStore, run_until_idle
from tests.support.observers import RecordingObserver

OF_CERTIFICATE = Principal("spiffe://corp/x", scopes("read:*"), method="certificate")
OF_JWT = Principal("jwt:ann@corp", scopes("write:*"), method="jwt")


class FakeVerifier:
    """Identifies everybody as one principal, and refuses what is wrong."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.calls: list[object] = []

    def identify(self, proof: object) -> Principal:
        self.calls.append(proof)
        if proof in (b"wrong", "wrong"):
            raise Unauthenticated("wrong", reason="wrong-credentials")
        return self.principal


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def registry(clock: FakeClock) -> AsyncIterator[Registry]:
    registry = Registry(FakeStore(), clock, RecordingObserver())
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
def refusals() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def access(registry: Registry, clock: FakeClock, refusals: list[tuple[str, str]]) -> AsyncIterator[AccessControl]:
    access = AccessControl(registry, clock, NO_SCOPES, lambda operation, reason: refusals.append((operation, reason)))
    access.start()
    yield access
    await access.stop()
    await access.stop()


def refused(access: AccessControl, credentials: Credentials) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as error:
        access.identify(credentials)
    return error.value


async def test_a_token_is_the_principal_that_it_proves(access: AccessControl, registry: Registry) -> None:
    await registry.write(declared(make_token("team-a", 1, "write:a")))
    principal = access.identify(Credentials(text_of(1)))
    assert (principal.name, principal.is_proven, principal.token_id) == ("team-a", True, id_of(1))
    assert principal.scopes == scopes("write:a")
    assert access.identify(Credentials(text_of(1))) is principal


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (text_of(2), "wrong-credentials"),
        (text_of(1, 2), "wrong-credentials"),
        (text_of(7), "wrong-credentials"),
        ("adsum_", "malformed"),
        (text_of(1) + "A", "malformed"),
        (text_of(1).upper(), "malformed"),
        ("eyJhbGciOiJub25lIn0.e30.", "malformed"),
        ("\udce9", "malformed"),
        (text_of(3), "expired"),
    ],
)
async def test_wrong_credentials_are_never_taken_for_none(
    access: AccessControl, registry: Registry, clock: FakeClock, token: str, reason: str
) -> None:
    await registry.write(declared(make_token(ANONYMOUS, 7, "admin", secrets=[7])))
    await registry.write(declared(make_token("team-a", 1)))
    await registry.write(declared(make_token("old", 3, expires=clock.wall())))
    error = refused(access, Credentials(token, b"certificate"))
    assert error.reason == reason
    assert secret_of(1) not in str(error)


async def test_a_caller_that_sends_nothing_is_anonymous(access: AccessControl, registry: Registry) -> None:
    assert access.identify(NO_CREDENTIALS) is access.anonymous
    assert (access.anonymous.name, access.anonymous.scopes) == (ANONYMOUS, NO_SCOPES)
    await registry.write(declared(make_token(ANONYMOUS, 1, "read:a")))
    assert access.identify(NO_CREDENTIALS).scopes == scopes("read:a")


async def test_the_token_anonymous_gives_nothing_once_it_has_expired(
    registry: Registry, clock: FakeClock, refusals: list[tuple[str, str]]
) -> None:
    access = AccessControl(registry, clock, EVERYTHING, lambda *_: None)
    await registry.write(declared(make_token(ANONYMOUS, 1, "read:*", expires=clock.wall() + 10.0)))
    assert access.anonymous.scopes == scopes("read:*")
    clock.jump(10.0)
    assert access.anonymous.scopes == access.identify(NO_CREDENTIALS).scopes == NO_SCOPES


async def test_a_token_outranks_a_jwt_and_both_a_certificate(access: AccessControl, registry: Registry) -> None:
    await registry.write(declared(make_token("team-a", 1)))
    certificates, jwts = FakeVerifier(OF_CERTIFICATE), FakeVerifier(OF_JWT)
    access.certificates, access.jwts = certificates, jwts
    assert access.identify(Credentials(text_of(1), b"der")).name == "team-a"
    assert access.identify(Credentials("ey.J.x", b"der")) is OF_JWT
    assert access.identify(Credentials("", b"der")) is OF_CERTIFICATE
    assert access.identify(NO_CREDENTIALS) is access.anonymous
    assert (certificates.calls, jwts.calls) == ([b"der"], ["ey.J.x"])
    assert refused(access, Credentials("wrong", b"der")).reason == "wrong-credentials"
    assert refused(access, Credentials("", b"wrong")).reason == "wrong-credentials"
    assert refused(access, Credentials("adsum_x", b"der")).reason == "malformed"


async def test_a_certificate_without_a_verifier_proves_nothing(access: AccessControl) -> None:
    assert access.identify(Credentials("", b"der")) is access.anonymous


async def test_credentials_are_not_judged_before_the_tokens_are_loaded(clock: FakeClock) -> None:
    access = AccessControl(Registry(FakeStore(), clock, RecordingObserver()), clock, NO_SCOPES, lambda *_: None)
    access.certificates = FakeVerifier(OF_CERTIFICATE)
    for credentials in (Credentials(text_of(1)), Credentials("", b"der"), Credentials("ey.J.x")):
        with pytest.raises(StoreUnavailable, match="not loaded"):
            access.identify(credentials)
    assert access.identify(NO_CREDENTIALS).scopes == NO_SCOPES


async def test_the_last_use_of_a_token_is_known_until_it_is_revoked(
    access: AccessControl, registry: Registry, clock: FakeClock
) -> None:
    await registry.write(declared(make_token("team-a", 1)))
    refused(access, Credentials(text_of(1, 2)))
    assert access.last_used == {}
    access.identify(Credentials(text_of(1)))
    assert access.last_used == {id_of(1): clock.wall()}
    await registry.write(revoked("team-a"))
    refused(access, Credentials(text_of(1)))
    assert access.last_used == {}


async def test_a_revoked_token_is_refused_and_its_streams_end_at_once(
    access: AccessControl, registry: Registry
) -> None:
    await registry.write(declared(make_token("team-a", 1)))
    await registry.write(declared(make_token("team-b", 2)))
    ended: list[str] = []
    one, other = (access.identify(Credentials(text_of(number))) for number in (1, 2))
    with access.session(one, lambda: ended.append("a")), access.session(other, lambda: ended.append("b")):
        await registry.write(revoked("team-a"))
        await run_until_idle()
        assert ended == ["a"]
    assert refused(access, Credentials(text_of(1))).reason == "wrong-credentials"


async def test_streams_of_anonymous_callers_end_when_their_scopes_change(
    access: AccessControl, registry: Registry
) -> None:
    ended: list[str] = []
    with access.session(access.anonymous, lambda: ended.append("first")):
        await registry.write(declared(make_token(ANONYMOUS, 1, "read:a")))
        await run_until_idle()
        assert ended == ["first"]
    with access.session(access.anonymous, lambda: ended.append("second")):
        await registry.write(declared(make_token(ANONYMOUS, 1, "read:a read:b")))
        await run_until_idle()
        assert ended == ["first", "second"]


async def test_a_stream_that_is_opened_after_the_revocation_ends_at_once(
    access: AccessControl, registry: Registry
) -> None:
    await registry.write(declared(make_token("team-a", 1)))
    principal = access.identify(Credentials(text_of(1)))
    await registry.write(revoked("team-a"))
    ended: list[str] = []
    with access.session(principal, lambda: ended.append("a")):
        assert ended == ["a"]


async def test_a_stream_of_a_rotated_secret_ends_with_the_overlap_within_a_second(
    access: AccessControl, registry: Registry, clock: FakeClock
) -> None:
    token = make_token("team-a", 1)
    await registry.write(declared(token))
    ended: list[str] = []
    with access.session(access.identify(Credentials(text_of(1))), lambda: ended.append("older")):
        await registry.write(declared(token.rotated(secret_of(9), clock.wall(), overlap=60.0)))
        await run_until_idle()
        newest = access.identify(Credentials(text_of(1, 9)))
        with access.session(newest, lambda: ended.append("newest")):
            await clock.advance(59.5)
            assert access.identify(Credentials(text_of(1))).name == "team-a"
            assert ended == []
            await clock.advance(1.5)
            assert ended == ["older"]
            assert refused(access, Credentials(text_of(1))).reason == "expired"
            assert access.identify(Credentials(text_of(1, 9))) is newest


async def test_a_stream_of_a_token_that_expires_ends_within_a_second(
    access: AccessControl, registry: Registry, clock: FakeClock
) -> None:
    await registry.write(declared(make_token("team-a", 1, expires=clock.wall() + 30.0)))
    ended: list[str] = []
    with access.session(access.identify(Credentials(text_of(1))), lambda: ended.append("a")):
        await clock.advance(29.9)
        assert ended == []
        await clock.advance(1.1)
        assert ended == ["a"]


async def test_streams_of_certificates_and_jwts_end_when_their_scopes_are_configured_anew(
    access: AccessControl, registry: Registry
) -> None:
    await registry.write(declared(make_token("team-a", 1)))
    ended: list[str] = []
    token = access.identify(Credentials(text_of(1)))
    with (
        access.session(OF_JWT, lambda: ended.append("jwt")),
        access.session(OF_CERTIFICATE, lambda: ended.append("certificate")),
        access.session(token, lambda: ended.append("token")),
        access.session(access.anonymous, lambda: ended.append("anonymous")),
    ):
        access.identities_changed()
        assert sorted(ended) == ["certificate", "jwt"]


async def test_streams_go_on_through_changes_of_the_catalog_and_of_other_tokens(
    access: AccessControl, registry: Registry
) -> None:
    await registry.write(declared(make_token("team-a", 1)))
    ended: list[str] = []
    with access.session(access.identify(Credentials(text_of(1))), lambda: ended.append("a")):
        await registry.write(declared(make_token("team-b", 2)))
        await registry.write(declared(replace(make_token("team-a", 1), used=86_400.0)))
        await registry.write(revoked("team-b"))
        await run_until_idle()
        assert ended == []


async def test_require_raises_what_the_gate_raises(access: AccessControl) -> None:
    access.require(OF_JWT, Action.REGISTER, ["orders"])
    with pytest.raises(Forbidden):
        access.require(OF_JWT, Action.DECLARE, ["orders"])
    with pytest.raises(Unauthenticated):
        access.require(access.anonymous, Action.READ, ["orders"])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unauthenticated("x", reason="expired"), "expired"),
        (Forbidden("x"), "forbidden"),
        (NotOwner("orders", "o1", "bob"), "not-owner"),
        (InvisibleService("orders", "bob"), "invisible"),
    ],
)
async def test_a_refusal_is_counted_by_operation_and_reason_and_logged_with_the_address(
    access: AccessControl,
    refusals: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
    error: AdsumError,
    reason: str,
) -> None:
    with caplog.at_level(logging.WARNING, "adsum.access"):
        access.record_refusal("read_service", error, Credentials(text_of(1), b"", "10.0.0.7"))
    assert refusals == [("read_service", reason)]
    assert "read_service to 10.0.0.7" in caplog.text
    assert secret_of(1) not in caplog.text


async def test_other_errors_are_no_refusals(
    access: AccessControl, refusals: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    access.record_refusal("register", Invalid("port", "must be a port"), NO_CREDENTIALS)
    access.record_refusal("register", StoreUnavailable("away"), NO_CREDENTIALS)
    assert (refusals, caplog.records) == ([], [])


async def test_the_log_of_refusals_is_bounded_and_their_count_is_not(
    access: AccessControl, refusals: list[tuple[str, str]], caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    with caplog.at_level(logging.WARNING, "adsum.access"):
        for _ in range(1_000):
            access.record_refusal("register", Forbidden("no"), NO_CREDENTIALS)
        assert (len(refusals), len(caplog.records)) == (1_000, int(LOGGED_REFUSALS_BURST))
        clock.jump(3.0)
        for _ in range(10):
            access.record_refusal("register", Forbidden("no"), NO_CREDENTIALS)
    assert len(caplog.records) == int(LOGGED_REFUSALS_BURST) + 3


async def test_texts_of_callers_are_escaped_in_the_log(access: AccessControl, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "adsum.access"):
        access.record_refusal("register", Forbidden("a\x1b[2Jb\u202ec"), NO_CREDENTIALS)
    assert r"a\x1b[2Jb\u202ec" in caplog.text


async def test_repeated_wrong_credentials_are_slowed_down_and_missing_ones_are_not(
    access: AccessControl, clock: FakeClock
) -> None:
    wrong, missing = Unauthenticated("x", "wrong-credentials"), Unauthenticated("x", "no-credentials")
    for _ in range(int(FAILURE_BURST)):
        await access.slow_down(wrong, "10.0.0.1:80")
    for error, address in ((missing, "10.0.0.1"), (Forbidden("x"), "10.0.0.1"), (wrong, "10.0.0.2")):
        await access.slow_down(error, address)
    delayed = asyncio.create_task(access.slow_down(wrong, "10.0.0.1:81"))
    await run_until_idle()
    assert not delayed.done()
    await clock.advance(MAX_FAILURE_DELAY)
    assert delayed.done()
