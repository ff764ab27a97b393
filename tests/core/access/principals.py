"""Principals, tokens and scopes for tests of access control."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

from adsum.core.access.principal import Principal, anonymous
from adsum.core.access.scopes import RIGHTS_OVER_SERVICES, Right, Scope, Scopes, parse_scopes
from adsum.core.access.tokens import Token, TokenSecret, hash_secret
from adsum.core.errors import AdsumError

NOW = 1_700_000_000.0
"""The present on the wall clock."""
ID = "0123456789abcdef"
SECRET = "s" * 43
OTHER_SECRET = "t" * 43


T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | AdsumError:
    """The result of a call, or the error with which it refuses."""
    try:
        return call()
    except AdsumError as error:
        return error


def scopes(*texts: str) -> Scopes:
    return parse_scopes("scopes", texts)


def proven(*texts: str, name: str = "team-a") -> Principal:
    """A principal with these scopes that proved who it is."""
    return Principal(name, scopes(*texts), token_id=ID)


def unproven(*texts: str) -> Principal:
    return anonymous(scopes(*texts))


def token(*secrets: str, name: str = "team-a", scope: str = "read:*", expires: float | None = None) -> Token:
    """A token with these secrets, the newest first."""
    return Token(name, ID, scopes(scope), [TokenSecret(hash_secret(secret)) for secret in secrets], expires=expires)


short_names = st.text(alphabet="ab-", min_size=1, max_size=4).filter(lambda name: name[0] != "-" and name[-1] != "-")
"""Names of services, of which many begin alike."""
patterns = st.one_of(
    short_names,
    st.text(alphabet="ab-", min_size=1, max_size=3).filter(lambda text: text[0] != "-").map(lambda text: f"{text}*"),
    st.just("*"),
)
single_scopes = st.one_of(
    st.builds(Scope, st.sampled_from(RIGHTS_OVER_SERVICES), patterns),
    st.sampled_from([Scope(Right.ADMIN), Scope(Right.NODE)]),
)
scope_sets = st.lists(single_scopes, max_size=5).map(Scopes)
narrow_scope_sets = st.lists(st.builds(Scope, st.sampled_from(RIGHTS_OVER_SERVICES), patterns), max_size=5).map(Scopes)
"""Scopes without `admin` and `node`."""
