from __future__ import annotations

import random
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog import EMPTY
from adsum.core.errors import Invalid
from adsum.gateway import patterns
from adsum.gateway.actions import Redirect
from adsum.gateway.compiled import NOTHING
from adsum.gateway.intent import Intent
from adsum.gateway.matches import HeaderMatch, MatchKind
from adsum.gateway.matches import Path as Where
from adsum.gateway.routes import Route
from adsum.gateway.shape import Shape
from tests.gateway.envoys import Caller, free_port, needs_envoy, running

PIECES = [
    *"abz09/.-_~^$|()[]{}*+?\\,:= ",
    *(r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\.", r"\\", r"\]", "(?:", "[a-z]", "[^/]", r"[\w.-]"),
    *("{2}", "{2,}", "{0,3}", "a*", ".+", "(a|b)", "()"),
]
written = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)


def readable(expression: str) -> bool:
    try:
        patterns.check("regex", expression)
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
def test_ordinary_expressions_are_read(expression: str) -> None:
    assert readable(expression)


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
        ("[z-a]", "does not go up"),
        ("[[:alpha:]]", "escape them"),
        ("a**", "means nothing"),
        ("a*+", "means nothing"),
        ("a{2}{3}", "means nothing"),
        ("a{,3}", "means nothing"),
        ("a{3,2}", "lower count first"),
        ("a{101}", "from 1 to 100"),
        ("^a$", "means nothing"),
        (r"\b", "an escape other than"),
        (r"\1", "an escape other than"),
        ("a\\", "an escape other than"),
        ("(?=a)", "kind of group"),
        ("(?i)a", "kind of group"),
        ("(?P<a>b)", "kind of group"),
        (".{80}", "at most 90 steps"),
        ("(" * 30 + "a" + ")" * 30, "in one another"),
    ],
)
def test_what_is_no_common_ground_is_refused_with_the_place(expression: str, problem: str) -> None:
    with pytest.raises(Invalid, match=re.escape(problem)):
        patterns.check("regex", expression)


@given(written)
def test_what_is_read_compiles_in_python_too(expression: str) -> None:
    if readable(expression):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(expression, re.ASCII)


@needs_envoy
def test_envoy_reads_the_same_and_finds_the_same(tmp_path: Path) -> None:
    chance = random.Random(7)
    shape = Shape((f"127.0.0.1:{free_port()}",), access_log="off")
    made = ("".join(chance.choices(PIECES, k=chance.randint(1, 8))) for _ in range(6_000))
    expressions = list(dict.fromkeys(expression for expression in made if readable(expression)))[:600]
    assert len(expressions) > 300
    routes = tuple(
        Route(
            f"r{n}",
            path=Where(MatchKind.EXACT, f"/{n}"),
            headers=(HeaderMatch("x-v", MatchKind.REGEX, expression),),
            redirect=Redirect(path="/yes"),
        )
        for n, expression in enumerate(expressions)
    )
    with running(NOTHING.follow(EMPTY, Intent(routes), {}), shape, tmp_path):
        caller = Caller(shape)
        for n, expression in enumerate(expressions):
            for value in ("".join(chance.choices("abz09/.-_~", k=chance.randint(1, 4))), "a", "ab"):
                response, _ = caller("GET", f"/{n}", "any", (("x-v", value),))
                assert (response.status == 302) is patterns.matches(expression, value), (expression, value)
        caller.close()
