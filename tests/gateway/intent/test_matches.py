from __future__ import annotations

import re

import pytest

from adsum.core.errors import Invalid
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch
from adsum.gateway.patterns.path_normalization import has_nul, normalize

EXACT, PREFIX, REGEX, PRESENT = MatchKind.EXACT, MatchKind.PREFIX, MatchKind.REGEX, MatchKind.PRESENT


@pytest.mark.parametrize(
    ("path", "matches"),
    [("/orders", True), ("/orders/", True), ("/orders/7", True), ("/orders7", False), ("/order", False), ("/", False)],
)
def test_a_prefix_matches_whole_segments(path: str, matches: bool) -> None:
    assert PathMatch(PREFIX, "/orders").matches(path) is matches
    assert PathMatch(PREFIX, "/orders/").matches(path) is matches


@pytest.mark.parametrize("kind", [EXACT, PREFIX])
@pytest.mark.parametrize(
    ("path", "normalized"),
    [
        ("/x/../y", "/y"),
        ("/caf%65", "/cafe"),
        ("/a\\b", "/a/b"),
        ("/users/{id}", "/users/%7Bid%7D"),
        ("/a|b", "/a%7Cb"),
    ],
)
def test_a_path_that_is_not_normalized_is_refused_and_the_error_has_the_normalized_one(
    kind: MatchKind, path: str, normalized: str
) -> None:
    with pytest.raises(Invalid, match=f"{kind.value}: .* to {re.escape(normalized)}; write that"):
        PathMatch(kind, path)
    assert PathMatch(kind, normalized).matches(normalize(path))


@pytest.mark.parametrize("kind", [EXACT, PREFIX])
def test_a_path_with_a_zero_byte_is_refused(kind: MatchKind) -> None:
    with pytest.raises(Invalid, match=f"{kind.value}: .*zero byte"):
        PathMatch(kind, "/a%00b")
    assert has_nul("/a/%00/../b")
    assert not has_nul("/..;%00/x"), "the parameters of a dot segment are removed"
    assert not has_nul("/%2500")


def test_a_missing_header_counts_as_empty_for_an_inverted_condition() -> None:
    assert HeaderMatch("a", EXACT, "1", invert=True).matches(None)
    assert not HeaderMatch("a", REGEX, ".*", invert=True).matches(None)
    assert not HeaderMatch("a", EXACT, "").matches(None)
    assert HeaderMatch("a", PRESENT, invert=True).matches(None)
