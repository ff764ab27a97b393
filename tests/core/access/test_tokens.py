"""Tokens: their text, their secrets, rotation and expiry."""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access.principal import ANONYMOUS, REGISTRY_ACTOR
from adsum.core.access.tokens import (
    MAX_SECRETS,
    MAX_TOKEN_LENGTH,
    Token,
    TokenParts,
    TokenSecret,
    earlier,
    find_secret,
    format_token,
    hash_secret,
    parse_token,
    verify,
)
from adsum.core.errors import Invalid, Unauthenticated
from tests.core.access.principals import ID, NOW, OTHER_SECRET, SECRET, attempt, scopes, token

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ids = st.text(alphabet="0123456789abcdef", min_size=16, max_size=16)
secrets = st.text(alphabet=BASE64, min_size=43, max_size=43)


@given(ids, secrets)
def test_a_token_is_parsed_as_it_was_formatted(id: str, secret: str) -> None:
    text = format_token(id, secret)
    assert parse_token(text) == (id, secret)
    assert len(text) <= MAX_TOKEN_LENGTH


@given(st.one_of(st.text(max_size=100), st.builds(format_token, st.text(max_size=20), st.text(max_size=50))))
def test_any_text_is_a_token_or_refused_without_repeating_it(text: str) -> None:
    parts = attempt(lambda: parse_token(text))
    if isinstance(parts, Unauthenticated):
        assert parts.reason == "malformed"
        assert len(text) < 10 or text not in str(parts)
    else:
        assert isinstance(parts, TokenParts)
        assert format_token(*parts) == text


@given(ids, secrets, st.data())
def test_a_changed_token_is_refused_or_another_one(id: str, secret: str, data: st.DataObject) -> None:
    text = format_token(id, secret)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(exclude_characters=text[at])) + text[at + 1 :]
    for other in (changed, text[:-1], text + "A", f" {text}", f"{text}\n", text.upper()):
        with suppress(Unauthenticated):
            assert parse_token(other) != (id, secret)


@pytest.mark.parametrize("name", ["a", "team-a", "admin@node.example", "A.b_c", "a" * 63, "0"])
def test_valid_names(name: str) -> None:
    assert token(name=name).name == name


@pytest.mark.parametrize("name", ["", "-a", "a" * 64, "a b", "a:b", "a/b", "a\n", "\u00e9", "a\u202e", REGISTRY_ACTOR])
def test_names_that_are_no_names_of_tokens(name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        token(name=name)


@pytest.mark.parametrize("id", ["", "0" * 15, "0" * 17, "G" * 16, "0" * 16 + "\n", ANONYMOUS])
def test_an_id_is_sixteen_hexadecimal_digits(id: str) -> None:
    with pytest.raises(Invalid, match="id"):
        Token("a", id, scopes())


@pytest.mark.parametrize("hash", ["", "0" * 63, "0" * 65, "g" * 64, "\u0660" * 64, SECRET])
def test_a_hash_is_64_hexadecimal_digits(hash: str) -> None:
    with pytest.raises(Invalid, match="hash"):
        TokenSecret(hash)


def test_a_secret_is_verified_and_another_one_refused() -> None:
    known = token(SECRET, OTHER_SECRET)
    assert verify(known, SECRET, NOW) is known.secrets[0]
    assert verify(known, OTHER_SECRET, NOW) is known.secrets[1]
    for wrong in ("", "u" * 43, SECRET[:-1], hash_secret(SECRET)):
        with pytest.raises(Unauthenticated) as refused:
            verify(known, wrong, NOW)
        assert refused.value.reason == "wrong-credentials"


def test_an_unknown_id_and_a_wrong_secret_get_the_same_answer() -> None:
    messages = set()
    for record in (None, token(SECRET), token(), token(SECRET, OTHER_SECRET)):
        with pytest.raises(Unauthenticated) as refused:
            verify(record, "u" * 43, NOW)
        messages.add((str(refused.value), refused.value.reason))
    assert len(messages) == 1


def test_an_unknown_id_a_token_without_secret_and_a_wrong_secret_take_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def counted(a: str, b: str) -> bool:
        compared[-1] += 1
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for record in (None, token(), token(SECRET)):
        compared.append(0)
        with pytest.raises(Unauthenticated):
            verify(record, "u" * 43, NOW)
    assert compared == [1, 1, 1]


def test_all_secrets_are_compared_whichever_one_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    compare = hmac.compare_digest

    def noted(a: str, b: str) -> bool:
        compared.append(a)
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    known = token(SECRET, OTHER_SECRET)
    assert find_secret(known.secrets, SECRET) is known.secrets[0]
    assert compared == [secret.hash for secret in known.secrets]


@pytest.mark.parametrize("which", ["token", "secret"])
def test_an_expired_token_and_an_expired_secret_are_refused_from_that_instant_on(which: str) -> None:
    known = token(SECRET)
    if which == "token":
        known = replace(known, expires=NOW)
    else:
        known = replace(known, secrets=[replace(known.secrets[0], expires=NOW)])
    assert verify(known, SECRET, NOW - 0.001) is known.secrets[0]
    with pytest.raises(Unauthenticated, match="team-a has expired") as refused:
        verify(known, SECRET, NOW)
    assert refused.value.reason == "expired"
    with pytest.raises(Unauthenticated) as refused:
        verify(known, OTHER_SECRET, NOW)
    assert refused.value.reason == "wrong-credentials", "a wrong secret does not learn that the token has expired"


def test_after_a_rotation_the_older_secret_ends_with_the_overlap() -> None:
    rotated = token(SECRET).rotated(OTHER_SECRET, NOW, overlap=60.0)
    assert verify(rotated, OTHER_SECRET, NOW + 1e9) is rotated.secrets[0]
    assert verify(rotated, SECRET, NOW + 59.0) is rotated.secrets[1]
    with pytest.raises(Unauthenticated):
        verify(rotated, SECRET, NOW + 60.0)


def test_a_rotation_without_overlap_ends_the_older_secrets_at_once() -> None:
    rotated = token(SECRET).rotated(OTHER_SECRET, NOW, overlap=0.0)
    assert [secret.hash for secret in rotated.secrets] == [hash_secret(OTHER_SECRET)]


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 100.0)), max_size=8))
def test_rotations_never_lengthen_a_secret_and_keep_a_bounded_number(steps: list[tuple[float, float]]) -> None:
    known, now = token(SECRET), NOW
    for number, (wait, overlap) in enumerate(steps):
        before, now = {secret.hash: secret.expires for secret in known.secrets}, now + wait
        known = known.rotated(f"{number}{SECRET}", now, overlap)
        assert 1 <= len(known.secrets) <= MAX_SECRETS
        newest, *older = known.secrets
        assert (newest.hash, newest.expires) == (hash_secret(f"{number}{SECRET}"), None)
        for secret in older:
            assert secret.expires is not None
            assert now < secret.expires <= now + overlap
            previous = before[secret.hash]
            assert previous is None or secret.expires <= previous


def test_past_the_most_secrets_the_oldest_ends_at_once() -> None:
    known = token("0")
    for number in range(1, MAX_SECRETS + 1):
        known = known.rotated(str(number), NOW, overlap=1_000.0)
    assert [secret.hash for secret in known.secrets] == [hash_secret(str(n)) for n in range(MAX_SECRETS, 0, -1)]


def test_the_principal_of_a_secret_ends_with_the_secret_or_the_token_whichever_is_earlier() -> None:
    known = replace(token(SECRET), expires=NOW + 100.0).rotated(OTHER_SECRET, NOW, overlap=10.0)
    newest, older = (known.principal(secret) for secret in known.secrets)
    assert (newest.expires, older.expires) == (NOW + 100.0, NOW + 10.0)
    assert newest.secret_id != older.secret_id
    assert (newest.name, newest.token_id, newest.scopes) == ("team-a", ID, known.scopes)
    assert known.principal().secret_id == ""


def test_the_token_anonymous_proves_nothing() -> None:
    principal = token(name=ANONYMOUS, expires=NOW).principal()
    assert not principal.is_proven
    assert (principal.owner, principal.actor("10.0.0.1")) == ("", "anonymous@10.0.0.1")
    assert (principal.token_id, principal.expires) == (ANONYMOUS, NOW)


def test_no_repr_holds_a_secret() -> None:
    known = token(SECRET).rotated(OTHER_SECRET, NOW, 10.0)
    parts = parse_token(format_token(known.id, SECRET))
    for shown in (repr(known), repr([known.principal(secret) for secret in known.secrets]), repr(parts)):
        assert SECRET not in shown
        assert OTHER_SECRET not in shown


def test_the_earlier_of_two_ends() -> None:
    assert earlier(None, None) is None
    assert earlier(1.0, None) == earlier(None, 1.0) == earlier(1.0, 2.0) == earlier(2.0, 1.0) == 1.0
