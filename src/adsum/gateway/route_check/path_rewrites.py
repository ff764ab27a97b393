"""The rewrites of request paths by routes, as gateways do them."""

from __future__ import annotations

import re
from typing import Final

from adsum.gateway.intent.matches import MatchKind
from adsum.gateway.intent.routes import Route
from adsum.gateway.patterns import regexes

_GROUP: Final = re.compile(r"\\([1-9])")


def rewrite_path(route: Route, path: str) -> str:
    """Returns the path that a target of the route receives for a path, without its query, that the route takes."""
    if route.rewrite is None:
        return path
    if route.path.kind is MatchKind.PREFIX:
        return replace_prefix(route.path.stem, route.rewrite, path)
    if route.path.kind is MatchKind.REGEX:
        groups = regexes.captured_groups(route.path.value, path) or ()
        return _GROUP.sub(lambda group: groups[int(group[1]) - 1] or "", route.rewrite)
    return route.rewrite


def replace_prefix(stem: str, prefix: str, path: str) -> str:
    """Returns the path with `prefix` in place of its `stem`. The slash before the rest is neither doubled nor lost."""
    rest = path[len(stem) :]
    return prefix.removesuffix("/") + rest if rest else prefix
