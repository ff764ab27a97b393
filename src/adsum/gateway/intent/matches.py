"""Conditions of routes on the path, the headers and the query of a request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.gateway.patterns import regexes
from adsum.gateway.patterns.path_normalization import has_nul, normalize

MAX_PATH_LENGTH: Final = 1024
"""Characters of a path in a route; a longer path is refused."""

_PATH: Final = re.compile(r"/[!-\"$->@-~]*")
_QUERY_NAME: Final = re.compile(r"[A-Za-z0-9._~\[\]-]{1,128}")


class MatchKind(StrEnum):
    """The ways to compare a value."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    PRESENT = "present"


def check_plain_path(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is a path: printable ASCII that starts with / and has no query or fragment."""
    if len(value) > MAX_PATH_LENGTH:
        raise Invalid(field, f"must be at most {MAX_PATH_LENGTH} characters, not {len(value)}")
    if not _PATH.fullmatch(value):
        raise Invalid(field, "must start with / and be plain ASCII without spaces, ? and #; percent-encode the rest")


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A condition on the path without its query.

    A prefix matches whole segments: `/orders` matches `/orders`, `/orders/` and `/orders/7`, not `/orders7`. A slash at
    its end makes no difference. A regex must match the whole path.
    """

    kind: MatchKind
    value: str

    def __post_init__(self) -> None:
        if self.kind is MatchKind.REGEX:
            regexes.check("regex", self.value)
        elif self.kind in (MatchKind.EXACT, MatchKind.PREFIX):
            check_plain_path(self.kind.value, self.value)
            if has_nul(self.value):
                raise Invalid(self.kind.value, "matches no request: gateways refuse paths with a zero byte (%00)")
            if (normalized := normalize(self.value)) != self.value:
                raise Invalid(
                    self.kind.value, f"matches no request: gateways normalize such a path to {normalized}; write that"
                )
        else:
            raise Invalid("", "must be exact, prefix or regex")

    @property
    def stem(self) -> str:
        """The prefix without the slash at its end; "" for the prefix / that matches every path."""
        return self.value.removesuffix("/")

    def matches(self, path: str) -> bool:
        """Returns whether the normalized path, without its query, meets the condition."""
        if self.kind is MatchKind.PREFIX:
            return path.startswith(self.stem) and path[len(self.stem) : len(self.stem) + 1] in ("", "/")
        if self.kind is MatchKind.REGEX:
            return regexes.matches(self.value, path)
        return path == self.value

    def __str__(self) -> str:
        return f"{self.kind.value} {self.value}"


ANY_PATH: Final = PathMatch(MatchKind.PREFIX, "/")
"""The condition that every path meets."""


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A condition on a header. Several headers of one name count as one value, joined by commas.

    With `invert`, the comparison must fail; a missing header then counts as empty.
    """

    name: str
    kind: MatchKind = MatchKind.PRESENT
    value: str = ""
    invert: bool = False

    def __post_init__(self) -> None:
        validation.headers("name", {self.name: ""}, 1)
        if self.name != self.name.lower():
            raise Invalid("name", "must be in lower case: headers are matched in any case")
        _check_value(self.kind, self.value, empty=self.kind is MatchKind.EXACT)

    def matches(self, value: str | None) -> bool:
        """Returns whether a request with that value of the header (None: without the header) meets the condition."""
        if self.kind is MatchKind.PRESENT:
            return (value is not None) is not self.invert
        if value is None:
            return self.invert and not _compare(self.kind, self.value, "")
        return _compare(self.kind, self.value, value) is not self.invert

    def __str__(self) -> str:
        return _describe(f"header {self.name}", self.kind, self.value, invert=self.invert)


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """A condition on the first parameter of that name in the query. The value is compared as sent, percent-encoded."""

    name: str
    kind: MatchKind = MatchKind.PRESENT
    value: str = ""

    def __post_init__(self) -> None:
        if not _QUERY_NAME.fullmatch(self.name):
            raise Invalid("name", "must be 1 to 128 letters, digits and . _ ~ [ ] -")
        if self.kind is MatchKind.PREFIX:
            raise Invalid("", "must be exact, regex or present")
        _check_value(self.kind, self.value, empty=self.kind is MatchKind.EXACT)

    def matches(self, value: str | None) -> bool:
        """Returns whether a request with that value of the parameter (None: without it) meets the condition."""
        if value is None or self.kind is MatchKind.PRESENT:
            return value is not None and self.kind is MatchKind.PRESENT
        return _compare(self.kind, self.value, value)

    def __str__(self) -> str:
        return _describe(f"query {self.name}", self.kind, self.value)


def _check_value(kind: MatchKind, value: str, *, empty: bool) -> None:
    if kind is MatchKind.PRESENT:
        if value:
            raise Invalid("present", "must have no value")
        return
    if kind is MatchKind.REGEX:
        regexes.check("regex", value)
        return
    validation.text(kind.value, value, validation.MAX_VALUE_LENGTH, empty=empty)
    if not value.isascii():
        raise Invalid(kind.value, "must be ASCII")


def _compare(kind: MatchKind, pattern: str, value: str) -> bool:
    if kind is MatchKind.REGEX:
        return regexes.matches(pattern, value)
    return value.startswith(pattern) if kind is MatchKind.PREFIX else value == pattern


def _describe(subject: str, kind: MatchKind, value: str, *, invert: bool = False) -> str:
    if kind is MatchKind.PRESENT:
        return f"{subject} {'absent' if invert else 'present'}"
    return f"{subject} {'not ' if invert else ''}{kind.value} {value!r}"
