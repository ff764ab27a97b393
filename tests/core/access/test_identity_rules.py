"""Rules that give scopes to certificates and JWTs of other authorities."""

from __future__ import annotations

import time
from fnmatch import translate
from re import fullmatch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adsum.core.access.identity_rules import (
    MAX_IDENTITY_LENGTH,
    MAX_RULES,
    IdentityPattern,
    certificate_scopes,
    claim_scopes,
    claim_values,
    is_own_spiffe_id,
    parse_certificate_rules,
    parse_claim_rules,
    principal_name,
)
from adsum.core.errors import Invalid
from adsum.core.validation import MAX_TEXT_LENGTH
from tests.core.access.principals import scopes
from tests.core.identity_json import json_values


@example("ab*ba", "aba")
@example("a*a", "a")
@example("*ab*ba*", "aba")
@given(st.text(alphabet="ab/*", max_size=8), st.text(alphabet="ab/*", max_size=10))
def test_an_asterisk_stands_for_any_text(pattern: str, text: str) -> None:
    assert IdentityPattern(pattern).matches(text) is (fullmatch(translate(pattern), text) is not None)


def test_many_asterisks_match_in_linear_time() -> None:
    pattern, text = IdentityPattern("*a" * 1_000 + "b"), "a" * 2_000
    began = time.perf_counter()
    assert not pattern.matches(text)
    assert IdentityPattern("*a" * 1_000).matches(text)
    assert time.perf_counter() - began < 1.0


def test_the_scopes_of_all_rules_that_match_add_up() -> None:
    rules = parse_certificate_rules(
        "certificate_scopes",
        [
            "spiffe://corp/*=read:*",
            "spiffe://corp/ns/team-a/*=write:team-a-*,operate:team-a-x",
            "CN=gateway-*.internal=read:*",
        ],
    )
    assert certificate_scopes(rules, "spiffe://corp/ns/b") == scopes("read:*")
    assert certificate_scopes(rules, "spiffe://corp/ns/team-a/sa") == scopes(
        "read:*", "write:team-a-*", "operate:team-a-x"
    )
    assert certificate_scopes(rules, "CN=gateway-1.internal") == scopes("read:*")
    for other in (
        "spiffe://corp",
        "spiffe://corporation/x",
        "CN=gateway-1.internal.evil",
        "CN=x",
        "gateway-1.internal",
    ):
        assert certificate_scopes(rules, other) == scopes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "read:*",
        "=read:*",
        "CN=x",
        "CN=x=",
        "CN=x=read",
        "CN=x=read:*,",
        "orders=read:*",
        "spiffe://=read:*",
        "spiffe://*=read:*",
        "spiffe://corp*/x=read:*",
        "spiffe://*/x=read:*",
        "spiffe://adsum/token/*=read:*",
        "spiffe://adsum=read:*",
        "spiffe://ADSUM/x=read:*",
        "spiffe://adsum*=read:*",
        "CN=a\nb=read:*",
        f"CN={'a' * 2_048}=read:*",
    ],
)
def test_a_bad_rule_for_certificates_is_refused_and_named(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_certificate_rules("certificate_scopes", ["*=read:*", text])
    assert refused.value.field.startswith("certificate_scopes[1]")


@pytest.mark.parametrize(
    "text", ["", "groups", "groups=read:*", "=a=read:*", "groups==read:*", "groups=a=", "g=a=root", "a\n=b=admin"]
)
def test_a_bad_rule_for_jwts_is_refused_and_named(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_claim_rules("jwt_scopes", [text])
    assert refused.value.field.startswith("jwt_scopes[0]")


def test_too_many_rules_are_refused() -> None:
    with pytest.raises(Invalid, match="at most"):
        parse_certificate_rules("certificate_scopes", ["*=read:*"] * (MAX_RULES + 1))
    with pytest.raises(Invalid, match="at most"):
        parse_claim_rules("jwt_scopes", ["a=b=read:*"] * (MAX_RULES + 1))


@pytest.mark.parametrize(
    ("uri", "is_own"),
    [
        ("spiffe://adsum/token/0123456789abcdef", True),
        ("spiffe://adsum", True),
        ("SPIFFE://Adsum/x", True),
        ("spiffe://adsum:80/x", True),
        ("spiffe://adsum?x", True),
        ("spiffe://adsum.example/x", False),
        ("spiffe://adsum-2/x", False),
        ("spiffe://corp/adsum", False),
        ("https://adsum/x", False),
    ],
)
def test_the_trust_domain_of_adsum(uri: str, *, is_own: bool) -> None:
    assert is_own_spiffe_id(uri) is is_own


CLAIMS = {
    "groups": ["team-a", "team-b", 7, True, None, {"x": 1}],
    "scope": "openid  adsum:write",
    "realm_access": {"roles": ["operator"]},
    "https://example.org/roles": ["admin"],
    "a.b": "dotted",
    "a": {"b": "nested"},
    "verified": False,
    "scp": "read write",
    "name": "mallory root",
    "realm": {"scope": "one two"},
}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("groups", ["team-a", "team-b", "7", "true"]),
        ("scope", ["openid  adsum:write", "openid", "adsum:write"]),
        ("realm_access.roles", ["operator"]),
        ("realm_access", []),
        ("https://example.org/roles", ["admin"]),
        ("a.b", ["dotted"]),
        ("verified", ["false"]),
        ("scp", ["read write", "read", "write"]),
        ("name", ["mallory root"]),
        ("realm.scope", ["one two"]),
        ("absent", []),
        ("scope.x", []),
        ("", []),
    ],
)
def test_the_values_of_a_claim(name: str, values: list[str]) -> None:
    assert claim_values(CLAIMS, name) == values


def test_a_value_of_a_claim_may_hold_equals_signs() -> None:
    (rule,) = parse_claim_rules("jwt_scopes", ["groups=CN=team-a,OU=x=write:team-a-*, read:*"])
    assert (rule.claim, rule.pattern.text, rule.scopes) == (
        "groups",
        "CN=team-a,OU=x",
        scopes("write:team-a-*", "read:*"),
    )


def test_a_name_that_contains_another_name_as_a_word_gives_none_of_its_scopes() -> None:
    rules = parse_claim_rules("jwt_scopes", ["name=root=admin", "email=*@corp.example=read:*"])
    assert claim_scopes(rules, {"name": "mallory root", "email": "x@corp.example y@evil.example"}) == scopes()


def test_claims_give_the_scopes_of_the_rules_that_match_a_value() -> None:
    rules = parse_claim_rules(
        "jwt_scopes", ["groups=team-*=read:*", "groups=team-b=write:b-*", "scope=adsum:write=write:c"]
    )
    assert claim_scopes(rules, {"groups": ["team-b"]}) == scopes("read:*", "write:b-*")
    assert claim_scopes(rules, {"groups": "team-x"}) == scopes("read:*")
    assert claim_scopes(rules, {"scope": "openid adsum:write"}) == scopes("write:c")
    assert claim_scopes(rules, {"group": ["team-b"], "scope": "adsum:writer"}) == scopes()


@given(st.dictionaries(st.sampled_from(["a", "b", "a.b"]), json_values), st.sampled_from(["a", "b", "a.b", "b.a.c"]))
def test_any_claims_have_values_that_are_texts(claims: dict[str, object], name: str) -> None:
    assert all(isinstance(value, str) for value in claim_values(claims, name))


identities = st.text(alphabet=st.characters(categories=("L", "N", "P")), min_size=1, max_size=200)


@given(identities, identities)
def test_different_identities_have_different_names_that_may_be_recorded(one: str, other: str) -> None:
    for identity in (one, other):
        assert len(principal_name(identity)) <= MAX_TEXT_LENGTH
        if len(identity) < MAX_TEXT_LENGTH:
            assert principal_name(identity) == identity
    assert (principal_name(one) == principal_name(other)) is (one == other)


def test_a_name_that_looks_like_a_shortened_one_is_shortened_too() -> None:
    shortened = principal_name("a" * 500)
    assert len(shortened) == MAX_TEXT_LENGTH
    assert principal_name(shortened) != shortened


@pytest.mark.parametrize("identity", ["", "a\nb", "a\x00", "\u202e", "a" * (MAX_IDENTITY_LENGTH + 1), "\ud800"])
def test_an_identity_that_can_not_be_shown_is_refused(identity: str) -> None:
    with pytest.raises(Invalid):
        principal_name(identity)
