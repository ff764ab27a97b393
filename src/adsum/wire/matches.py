"""The JSON of the conditions of a route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.gateway.intent.matches import MAX_PATH_LENGTH, HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.wire import protocol
from adsum.wire.requests import RequestBody

PathText = Annotated[str, Meta(max_length=MAX_PATH_LENGTH)]
Value = Annotated[str, Meta(max_length=validation.MAX_VALUE_LENGTH)]
HeaderName = Annotated[str, Meta(pattern=protocol.HEADER_NAME_PATTERN)]
ParameterName = Annotated[str, Meta(pattern=protocol.PARAMETER_NAME_PATTERN)]


class PathMatchBody(RequestBody, frozen=True):
    """A condition on the path: exactly one of exact, prefix and regex."""

    exact: PathText | None = None
    prefix: PathText | None = None
    regex: PathText | None = None

    def to_path(self) -> PathMatch:
        return PathMatch(*_only_one({"exact": self.exact, "prefix": self.prefix, "regex": self.regex}))

    @staticmethod
    def from_path(path: PathMatch) -> PathMatchBody:
        return PathMatchBody(**{path.kind.value: path.value})


class HeaderMatchBody(RequestBody, frozen=True):
    """A condition on a header: exactly one of exact, prefix, regex and present. The name may have any case."""

    name: HeaderName
    exact: Value | None = None
    prefix: Value | None = None
    regex: Value | None = None
    present: bool = False
    invert: bool = False

    def to_match(self) -> HeaderMatch:
        conditions = {"exact": self.exact, "prefix": self.prefix, "regex": self.regex}
        return HeaderMatch(self.name.lower(), *_only_one(conditions, present=self.present), invert=self.invert)

    @staticmethod
    def from_match(match: HeaderMatch) -> HeaderMatchBody:
        value_of = {match.kind: match.value}.get
        present = match.kind is MatchKind.PRESENT
        exact, prefix, regex = value_of(MatchKind.EXACT), value_of(MatchKind.PREFIX), value_of(MatchKind.REGEX)
        return HeaderMatchBody(match.name, exact, prefix, regex, present, match.invert)


class QueryMatchBody(RequestBody, frozen=True):
    """A condition on a query parameter: exactly one of exact, regex and present."""

    name: ParameterName
    exact: Value | None = None
    regex: Value | None = None
    present: bool = False

    def to_match(self) -> QueryMatch:
        return QueryMatch(self.name, *_only_one({"exact": self.exact, "regex": self.regex}, present=self.present))

    @staticmethod
    def from_match(match: QueryMatch) -> QueryMatchBody:
        value_of = {match.kind: match.value}.get
        return QueryMatchBody(
            match.name, value_of(MatchKind.EXACT), value_of(MatchKind.REGEX), match.kind is MatchKind.PRESENT
        )


def _only_one(conditions: Mapping[str, str | None], *, present: bool | None = None) -> tuple[MatchKind, str]:
    """Returns the only condition that is given. Raises `Invalid` for none or several."""
    found = [(MatchKind(kind), value) for kind, value in conditions.items() if value is not None]
    if present:
        found.append((MatchKind.PRESENT, ""))
    if len(found) != 1:
        names = [*conditions, *(("present",) if present is not None else ())]
        raise Invalid("", f"must have exactly one of {', '.join(names[:-1])} and {names[-1]}")
    return found[0]
