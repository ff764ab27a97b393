"""The conditions of routes as Envoy's matchers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as components

from adsum.gateway.intent.matches import HeaderMatch, MatchKind, QueryMatch
from adsum.gateway.intent.routes import Route

_REQUEST_METHOD = "access-control-request-method"


class PathForm(NamedTuple):
    """One of Envoy's path conditions, and the text that replaces the part that it matches ("": no rewrite)."""

    condition: Mapping[str, Any]
    rewrite: str = ""


def path_forms(route: Route, replacement: str) -> Iterator[PathForm]:
    """Yields the path conditions of the route: two for a prefix, else one."""
    path = route.path
    if path.kind is MatchKind.REGEX:
        yield PathForm({"safe_regex": {"regex": path.value}}, replacement)
    elif path.kind is MatchKind.EXACT:
        yield PathForm({"path": path.value}, replacement)
    elif not path.stem:
        yield PathForm({"prefix": "/"}, replacement and replacement.removesuffix("/") + "/")
    else:
        # Two text comparisons cost Envoy less than its prefix by segments, and neither double nor lose a slash.
        yield PathForm({"prefix": path.stem + "/"}, replacement and replacement.removesuffix("/") + "/")
        yield PathForm({"path": path.stem}, replacement)


def header_matchers(headers: Iterable[HeaderMatch], methods: Sequence[str]) -> list[Any]:
    """Returns matchers of the header conditions, and of the methods if there are any."""
    matchers = [_header_matcher(header) for header in headers]
    if methods:
        matchers.append(_one_of(":method", methods))
    return matchers


def preflight_matchers(route: Route) -> list[Any]:
    """Returns matchers of a browser's preflight for the route.

    A preflight has neither the method nor the headers of the call that the browser wants to make.
    """
    if route.methods:
        method = _one_of(_REQUEST_METHOD, route.methods)
    else:
        method = components.HeaderMatcher(name=_REQUEST_METHOD, present_match=True)
    return [_one_of(":method", ["OPTIONS"]), components.HeaderMatcher(name="origin", present_match=True), method]


def query_matchers(parameters: Iterable[QueryMatch]) -> Iterator[Any]:
    """Yields matchers of the query conditions."""
    for parameter in parameters:
        matcher = components.QueryParameterMatcher(name=parameter.name)
        if parameter.kind is MatchKind.PRESENT:
            matcher.present_match = True
        else:
            _set_comparison(matcher.string_match, parameter.kind, parameter.value)
        yield matcher


def _one_of(name: str, values: Sequence[str]) -> Any:
    matcher = components.HeaderMatcher(name=name)
    if len(values) == 1:
        matcher.string_match.exact = values[0]
    else:
        matcher.string_match.safe_regex.regex = "|".join(map(re.escape, values))
    return matcher


def _header_matcher(header: HeaderMatch) -> Any:
    matcher = components.HeaderMatcher(name=header.name, invert_match=header.invert)
    if header.kind is MatchKind.PRESENT:
        matcher.present_match = True
        return matcher
    _set_comparison(matcher.string_match, header.kind, header.value)
    matcher.treat_missing_header_as_empty = header.invert
    return matcher


def _set_comparison(matcher: Any, kind: MatchKind, value: str) -> None:
    if kind is MatchKind.REGEX:
        matcher.safe_regex.regex = value
    elif kind is MatchKind.PREFIX:
        matcher.prefix = value
    else:
        matcher.exact = value
