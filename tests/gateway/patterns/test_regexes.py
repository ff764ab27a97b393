from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT
from adsum.core.errors import Invalid
from adsum.gateway.intent.actions import Redirect, Target
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import automaton, regexes
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.gateway.route_check.path_rewrites import rewrite_path
from tests.gateway.real_envoy import GatewayConnection, free_port, needs_envoy, running_envoy, validation_error

PIECES = [
    *"abz09/.-_~^$|()[]{}*+?\\,:= ",
    *(r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\.", r"\\", r"\]", "(?:", "[a-z]", "[^/]", r"[\w.-]"),
    *("{2}", "{2,}", "{0,3}", "a*", ".+", "(a|b)", "()", "(a*)*", "(|b)", "*?", "+?", "??", "{0,2}?", "[^a]"),
]
expressions = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)


def is_accepted(expression: str) -> bool:
    try:
        regexes.check("regex", expression)
    except Invalid:
        return False
    return True


@pytest.mark.parametrize(
    "expression",
    [
        r"/o/[0-9]+",
        r"/[^/]+/x",
        r"(?:a|b)*c?",
        r"\w{2,5}",
        r"[\w.-]+",
        r"a{3}",
        r"[a-]",
        r"[-a]",
        r".*",
        r"\{\}",
        "a{0,2}?",
    ],
)
def test_ordinary_expressions_are_accepted(expression: str) -> None:
    assert is_accepted(expression)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "1 to 256"),
        ("a" * 257, "1 to 256"),
        ("é", "ASCII"),
        ("(", "without its )"),
        (")", "without its ("),
        ("[a", "not closed"),
        ("[]", "empty set"),
        ("[z-a]", "end comes before its start"),
        ("[[:alpha:]]", "unescaped ["),
        ("a**", "no meaning"),
        ("a*+", "no meaning"),
        ("a{2}{3}", "no meaning"),
        ("a{,3}", "no meaning"),
        ("a{3,2}", "lower count first"),
        ("a{101}", "from 1 to 100"),
        ("^a$", "no meaning"),
        (r"\b", "an escape other than"),
        (r"\1", "an escape other than"),
        ("a\\", "an escape other than"),
        ("(?=a)", "kind of group"),
        ("(?i)a", "kind of group"),
        ("(?P<a>b)", "kind of group"),
        (".{80}", "at most 90 steps"),
        ("(" * 30 + "a" + ")" * 30, "nested groups"),
    ],
)
def test_an_unsupported_expression_is_refused_with_its_position(expression: str, problem: str) -> None:
    with pytest.raises(Invalid, match=re.escape(problem)):
        regexes.check("regex", expression)


values = st.text(st.sampled_from("aabbz09/.-_~ \t\n\x0b\r\x0cé€"), max_size=6)


def _encoded(group: str | None) -> bytes | None:
    return None if group is None else group.encode(errors="surrogateescape")


@given(expressions, st.lists(values, max_size=4))
@settings(max_examples=2_000)
@example(r"(a*)*(b|)+?", ["", "a", "aab"])
@example(r"((a|ab)(c|bcd)){0,2}?", ["abcd", "acabcd"])
@example(r"[^a]\s", ["\n\n", "é\x0b"])
@example(r"([^a-z]()*){10}", ["1234567890"])
@example(r"([a-z]+|a{3,}){4,9}?", ["aaaaaaaaa"])
def test_an_accepted_expression_has_the_meaning_that_it_has_in_re2(expression: str, values: list[str]) -> None:
    re2 = pytest.importorskip("re2", reason="google-re2 has no wheel for this Python: the real Envoy is compared below")
    if not is_accepted(expression):
        return
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1  # As in Envoy, RE2 matches bytes.
    expected = re2.compile(expression.encode(), options)
    for compiled in (expression, f"^(?:{expression})$"):  # A rewrite uses the latter form.
        assert re2.compile(compiled.encode(), options).programsize <= 2 * regexes.MAX_REGEX_STEPS
    assert regexes.group_count(expression) == expected.groups
    for value in values:
        found = expected.fullmatch(value.encode())
        assert regexes.matches(expression, value) is (found is not None), value
        groups = regexes.captured_groups(expression, value)
        assert (None if groups is None else [_encoded(group) for group in groups]) == (
            list(found.groups()) if found else None
        ), value


@pytest.mark.parametrize(
    ("expression", "value"), [("..", "é"), ("[^a]{6}", "华东"), (r"\W{4}", "😀"), (r"a\S\Sb", "aéb")]
)
def test_a_non_ascii_character_counts_as_many_characters_as_it_has_bytes(expression: str, value: str) -> None:
    assert regexes.matches(expression, value)
    assert regexes.captured_groups(f"({expression})", value) == (value,)
    assert not regexes.matches(expression, value + "é")


HOSTILE = [
    (r"/(a+)+b", "/" + "a" * 4_096),
    (r"/u/([a-z]+-?)+/x", "/u/" + "a" * 4_096 + "/y"),
    (r"(a|a)*b", "a" * 4_096),
    (r"(.*)*x", "a" * 4_096),
    (r"(a?){12}a{12}b", "a" * 4_096),
    (r"[ab]*a[ab]{40}/", "".join(random.Random(7).choices("ab", k=4_096))),
    (r"(\w+\s?)*;", "word " * 800),
]


@pytest.mark.parametrize(("expression", "value"), HOSTILE, ids=[expression for expression, _ in HOSTILE])
def test_a_match_takes_one_step_for_each_character(
    expression: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, union = [], automaton._Neighbours.union

    def counted_union(neighbours: automaton._Neighbours, states: int) -> int:
        steps.append(states)
        return union(neighbours, states)

    monkeypatch.setattr(automaton._Neighbours, "union", counted_union)
    regexes.check("regex", expression)
    assert not regexes.matches(expression, value)
    assert len(steps) <= len(value)
    assert regexes.captured_groups(expression, value) is None
    assert len(steps) <= 2 * len(value)
    assert max(states.bit_length() for states in steps) <= regexes.MAX_REGEX_STEPS + 1


def test_an_automaton_caches_at_most_its_bound_of_state_sets() -> None:
    expression, value = HOSTILE[5]
    regexes.matches(expression, value)
    matcher = regexes._compile(expression).automaton
    assert len(matcher._after._cache) == automaton.MAX_CACHED_STATE_SETS


@pytest.mark.parametrize("expression", [expression for expression, _ in HOSTILE])
def test_every_condition_with_a_regex_matches_in_linear_time(expression: str) -> None:
    """Python's `re` would backtrack for hours on these values."""
    value = "/" + "a" * 60
    assert not PathMatch(MatchKind.REGEX, expression).matches(value)
    assert not HeaderMatch("x-v", MatchKind.REGEX, expression).matches(value)
    assert not QueryMatch("v", MatchKind.REGEX, expression).matches(value)
    assert not Cors(("https://*.shop.example",)).allows("https://" + "a." * 2_000)
    route = Route(
        "r", path=PathMatch(MatchKind.REGEX, r"/((a+)+)(b?)"), to=(Target(Selector("orders")),), rewrite=r"/\1/\3"
    )
    assert rewrite_path(route, value) == value + "/"


@needs_envoy
@pytest.mark.parametrize("expression", [r"([^a-z]()*){10}", r"([a-z]+|a{3,}){4,9}?"])
def test_envoy_accepts_expressions_with_more_instructions_than_its_default_allows(
    expression: str, tmp_path: Path
) -> None:
    route = Route("r", headers=(HeaderMatch("x-v", MatchKind.REGEX, expression),), to=(Target(Selector("orders")),))
    profile = GatewayProfile((f"127.0.0.1:{free_port()}",))
    assert validation_error(NO_RESOURCES.advance(EMPTY_SNAPSHOT, Intent((route,)), {}), profile, tmp_path) == ""


@needs_envoy
def test_envoy_accepts_the_same_expressions_and_finds_the_same_matches(tmp_path: Path) -> None:
    rng = random.Random(7)
    profile = GatewayProfile((f"127.0.0.1:{free_port()}",), access_log="off")
    generated = ("".join(rng.choices(PIECES, k=rng.randint(1, 8))) for _ in range(6_000))
    expressions = list(dict.fromkeys(expression for expression in generated if is_accepted(expression)))[:600]
    assert len(expressions) > 300
    routes = tuple(
        Route(
            f"r{n}",
            path=PathMatch(MatchKind.EXACT, f"/{n}"),
            headers=(HeaderMatch("x-v", MatchKind.REGEX, expression),),
            redirect=Redirect(path="/yes"),
        )
        for n, expression in enumerate(expressions)
    )
    with running_envoy(NO_RESOURCES.advance(EMPTY_SNAPSHOT, Intent(routes), {}), profile, tmp_path):
        caller = GatewayConnection(profile)
        for n, expression in enumerate(expressions):
            for value in ("".join(rng.choices("abz09/.-_~é€", k=rng.randint(1, 4))), "a", "ab", "é"):
                response, _ = caller("GET", f"/{n}", "any", (("x-v", value.encode()),))
                assert (response.status == 302) is regexes.matches(expression, value), (expression, value)
        caller.close()
