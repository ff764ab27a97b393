"""Scopes: their text, the ladder of rights, and the sets of names that patterns mean."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access.scopes import (
    ALL_NAMES,
    EVERYTHING,
    MAX_SCOPES,
    NO_NAMES,
    NO_SCOPES,
    RIGHTS_OVER_SERVICES,
    Right,
    Scope,
    Scopes,
    intern_patterns,
    parse_scopes,
)
from adsum.core.errors import Invalid
from tests.core.access.principals import attempt, patterns, scope_sets, scopes, short_names, single_scopes


@given(single_scopes)
def test_a_scope_is_parsed_as_it_is_written(scope: Scope) -> None:
    assert Scope.parse("scopes", str(scope)) == scope


@pytest.mark.parametrize(
    "text",
    [
        "read:orders",
        "write:team-a-*",
        "operate:*",
        "admin",
        "node",
        "read:0",
        f"read:{'a' * 63}",
        f"read:{'a' * 62}*",
        "read:a-*",
    ],
)
def test_valid_scopes(text: str) -> None:
    assert str(Scope.parse("scopes", text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "read",
        "read:",
        ":orders",
        "READ:orders",
        "read:Orders",
        "read:**",
        "read:a*b",
        "read:*a",
        "read:-a",
        "read:a-",
        "read:a_b",
        "read: a",
        " read:a",
        "read:a ",
        "read:a\n",
        "read:a:b",
        "admin:*",
        "node:a",
        "root:*",
        f"read:{'a' * 64}",
        f"read:{'a' * 63}*",
        "read:\u0101",
    ],
)
def test_anything_else_is_refused_and_the_error_names_the_field(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_scopes("scopes", ["read:*", text])
    assert refused.value.field == "scopes[1]"


@given(st.text(max_size=80))
def test_any_text_is_a_scope_or_invalid(text: str) -> None:
    scope = attempt(lambda: Scope.parse("scope", text))
    assert isinstance(scope, Invalid) or str(scope) == text
    assert len(str(scope)) < 600


def test_too_many_scopes_are_refused() -> None:
    texts = [f"read:a{number}" for number in range(MAX_SCOPES + 1)]
    assert len(parse_scopes("scopes", texts[:-1]).scopes) == MAX_SCOPES
    with pytest.raises(Invalid, match="at most 64"):
        parse_scopes("scopes", texts)


def _naive_can(set_: Scopes, right: Right, name: str) -> bool:
    """The definition: some scope has this right or a stronger one, and a pattern that matches."""
    ladder = list(RIGHTS_OVER_SERVICES)
    return any(
        scope.right is Right.ADMIN
        or (
            scope.right in ladder
            and ladder.index(scope.right) >= ladder.index(right)
            and fnmatchcase(name, scope.pattern)
        )
        for scope in set_.scopes
    )


@given(scope_sets, st.sampled_from(RIGHTS_OVER_SERVICES), short_names)
def test_a_set_gives_what_one_of_its_scopes_gives(set_: Scopes, right: Right, name: str) -> None:
    assert set_.can(right, name) is _naive_can(set_, right, name)
    assert set_.patterns(right).includes(name) is _naive_can(set_, right, name)


@given(scope_sets, short_names)
def test_a_stronger_right_includes_the_weaker_ones(set_: Scopes, name: str) -> None:
    given_rights = [set_.can(right, name) for right in RIGHTS_OVER_SERVICES]
    assert given_rights == sorted(given_rights, reverse=True)


@given(scope_sets, st.lists(short_names, max_size=8))
def test_a_right_everywhere_is_a_right_over_every_name(set_: Scopes, names: list[str]) -> None:
    for right in RIGHTS_OVER_SERVICES:
        if set_.can_everywhere(right):
            assert all(set_.can(right, name) for name in names)
        else:
            assert not set_.can(right, "z9")
        if set_.patterns(right).is_empty:
            assert not any(set_.can(right, name) for name in names)


def test_admin_includes_everything_and_node_nothing_over_services() -> None:
    admin, node = scopes("admin"), scopes("node")
    assert all(admin.can_everywhere(right) for right in Right)
    assert [right for right in Right if node.can_everywhere(right)] == [Right.NODE]
    assert all(node.patterns(right) is NO_NAMES for right in RIGHTS_OVER_SERVICES)
    assert EVERYTHING.includes(admin)
    assert admin.includes(EVERYTHING)
    assert not any(NO_SCOPES.can_everywhere(right) for right in Right)


@given(scope_sets, scope_sets)
def test_a_set_that_includes_another_one_allows_all_that_it_allows(one: Scopes, other: Scopes) -> None:
    if one.includes(other):
        for right in Right:
            assert one.can_everywhere(right) or not other.can_everywhere(right)
        for name in ("a", "b", "ab", "a-b", "aab", "bb", "a-a-a", "z"):
            for right in RIGHTS_OVER_SERVICES:
                assert one.can(right, name) or not other.can(right, name)
    assert one.includes(one)
    assert Scopes((*one.scopes, *other.scopes)).includes(other)


@pytest.mark.parametrize(
    ("one", "other", "is_included"),
    [
        ("read:*", "read:a", True),
        ("write:a*", "read:ab*", True),
        ("read:a*", "write:ab", False),
        ("read:ab*", "read:a*", False),
        ("read:a", "read:a*", False),
        ("operate:*", "admin", False),
        ("operate:*", "node", False),
        ("admin", "node", True),
        ("node", "read:a", False),
    ],
)
def test_scopes_that_include_others(one: str, other: str, is_included: bool) -> None:
    assert scopes(one).includes(scopes(other)) is is_included


@given(st.frozensets(patterns, max_size=6), short_names)
def test_interned_patterns_include_the_names_that_any_of_them_matches(found: frozenset[str], name: str) -> None:
    assert intern_patterns(found).includes(name) is any(fnmatchcase(name, pattern) for pattern in found)


@given(st.frozensets(patterns, max_size=6))
def test_interned_patterns_hold_no_pattern_that_another_one_covers(found: frozenset[str]) -> None:
    interned = intern_patterns(found)
    if interned.is_all:
        assert (interned.names, interned.prefixes) == (frozenset(), ())
    for name in interned.names:
        assert not name.startswith(interned.prefixes)
    for prefix in interned.prefixes:
        assert not any(prefix.startswith(other) for other in interned.prefixes if other != prefix)
    assert interned.is_empty is (not found)


def test_sets_of_the_same_names_are_one_object() -> None:
    assert intern_patterns(frozenset({"a*", "ab", "ab*"})) is intern_patterns(frozenset({"a*"}))
    assert intern_patterns(frozenset({"*", "a"})) is ALL_NAMES
    assert intern_patterns(frozenset()) is NO_NAMES
    assert scopes("read:a*", "write:ab").visible is scopes("read:a*").visible


def test_the_digest_of_a_set_differs_from_that_of_another_set() -> None:
    sets = [ALL_NAMES, NO_NAMES, *(intern_patterns(frozenset(p)) for p in ({"a"}, {"a*"}, {"a", "b"}, {"a*", "b"}))]
    assert len({found.digest for found in sets}) == len(sets)
    assert intern_patterns(frozenset({"b", "a"})).digest == intern_patterns(frozenset({"a", "b"})).digest


@given(st.lists(single_scopes, max_size=5))
def test_the_order_and_repetition_of_scopes_do_not_matter(found: list[Scope]) -> None:
    one, other = Scopes(found), Scopes([*reversed(found), *found])
    assert (one, hash(one)) == (other, hash(other))
    assert parse_scopes("scopes", one.texts()) == one
    assert one != Scopes([*found, Scope(Right.READ, "zz")])
    assert repr(one) == f"Scopes({' '.join(one.texts())})"
