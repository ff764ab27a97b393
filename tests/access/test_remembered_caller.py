"""A caller that is remembered over many requests has the rights that it has now."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.core.access import tokens
from adsum.core.access.principal import ANONYMOUS, Principal
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.access.tokens import Token
from adsum.core.errors import StoreUnavailable, Unauthenticated
from adsum.registry import Registry
from tests.access.tokens import declared, make_token, revoked, text_of
from tests.core.access.principals import scopes
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver


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
def access(registry: Registry, clock: FakeClock) -> AccessControl:
    return AccessControl(registry, clock, NO_SCOPES, lambda operation, reason: None)


class OneVerifier:
    """Identifies every certificate and JWT as the principal that it has."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    def identify(self, proof: object) -> Principal:
        return self.principal


async def test_a_token_is_verified_once_while_no_token_changes(
    access: AccessControl, registry: Registry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.write(declared(make_token("a", 1)))
    caller = access.remember(Credentials(text_of(1)))
    first = caller.identify()
    assert first.name == "a"
    monkeypatch.setattr(tokens, "hash_secret", None)
    clock.jump(5.0)
    assert caller.identify() is first
    assert list(access.last_used.values()) == [clock.wall()]


async def test_a_revoked_token_is_refused_at_the_next_request(access: AccessControl, registry: Registry) -> None:
    await registry.write(declared(make_token("a", 1)))
    caller = access.remember(Credentials(text_of(1)))
    caller.identify()
    await registry.write(revoked("a"))
    with pytest.raises(Unauthenticated, match="revoked"):
        caller.identify()
    assert access.last_used == {}
    await registry.write(declared(make_token("a", 1)))
    assert caller.identify().name == "a"


@pytest.mark.parametrize(
    "after", [make_token("a", 1, "write:orders"), make_token("a", 1, secrets=[2, 1]), make_token("b", 3)]
)
async def test_the_scopes_of_a_changed_token_count_at_once(
    access: AccessControl, registry: Registry, after: Token
) -> None:
    await registry.write(declared(make_token("a", 1)))
    caller = access.remember(Credentials(text_of(1)))
    caller.identify()
    await registry.write(declared(after))
    assert caller.identify() == access.identify(Credentials(text_of(1)))


async def test_a_secret_that_was_replaced_is_refused(access: AccessControl, registry: Registry) -> None:
    await registry.write(declared(make_token("a", 1)))
    caller = access.remember(Credentials(text_of(1)))
    caller.identify()
    await registry.write(declared(make_token("a", 1, secrets=[2])))
    with pytest.raises(Unauthenticated, match="wrong, or was revoked"):
        caller.identify()


async def test_an_expired_token_is_refused_when_it_ends(
    access: AccessControl, registry: Registry, clock: FakeClock
) -> None:
    await registry.write(declared(make_token("a", 1, expires=clock.wall() + 10.0)))
    caller = access.remember(Credentials(text_of(1)))
    clock.jump(9.0)
    caller.identify()
    clock.jump(1.0)
    with pytest.raises(Unauthenticated, match="expired"):
        caller.identify()


async def test_callers_without_a_token_have_the_rights_of_the_moment(access: AccessControl, registry: Registry) -> None:
    nobody, somebody = access.remember(Credentials()), access.remember(Credentials(certificate=b"der"))
    access.certificates = verifier = OneVerifier(Principal("one", scopes("read:*"), method="certificate"))
    assert (nobody.identify().name, somebody.identify().name) == (ANONYMOUS, "one")
    assert nobody.identify().scopes == NO_SCOPES
    await registry.write(declared(make_token(ANONYMOUS, 9, "read:orders")))
    verifier.principal = Principal("two", scopes("read:*"), method="certificate")
    assert nobody.identify().scopes == scopes("read:orders")
    assert somebody.identify().name == "two"
    access.jwts = OneVerifier(verifier.principal)
    assert access.remember(Credentials("a.b.c")).identify().name == "two"


async def test_nobody_is_identified_before_the_tokens_are_loaded(clock: FakeClock) -> None:
    access = AccessControl(
        Registry(FakeStore(), clock, RecordingObserver()), clock, NO_SCOPES, lambda operation, reason: None
    )
    with pytest.raises(StoreUnavailable, match="not loaded yet"):
        access.remember(Credentials(text_of(1))).identify()


def test_the_text_of_a_remembered_caller_has_no_secret(access: AccessControl) -> None:
    assert text_of(1) not in repr(access.remember(Credentials(text_of(1), address="10.0.0.1")))
