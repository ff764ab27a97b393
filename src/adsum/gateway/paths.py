"""Paths as gateways read and rewrite them."""

from __future__ import annotations

import re
from typing import Final

from adsum.gateway import patterns
from adsum.gateway.matches import MatchKind
from adsum.gateway.routes import Route

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_GROUP: Final = re.compile(r"\\([1-9])")


def normal(path: str) -> str:
    """The path without its query as Envoy's `normalize_path` leaves it (RFC 3986, section 6.2.2).

    Escapes of unreserved characters are undone, backslashes turned, dot segments resolved; doubled slashes stay.
    """
    path = _ESCAPE.sub(_unescaped, path).replace("\\", "/")
    kept: list[str] = []
    segments = path.split("/")[1:]
    for n, segment in enumerate(segments):
        if segment in (".", ".."):
            if segment == ".." and kept:
                kept.pop()
            if n == len(segments) - 1:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _unescaped(escape: re.Match[str]) -> str:
    code = int(escape[1], 16)
    return chr(code) if code in _UNRESERVED else escape[0]


def rewritten(route: Route, path: str) -> str:
    """What a target of the route sees of a path, without its query, that the route takes."""
    if route.rewrite is None:
        return path
    if route.path.kind is MatchKind.PREFIX:
        return replaced(route.path.stem, route.rewrite, path)
    if route.path.kind is MatchKind.REGEX:
        groups = patterns.captured(route.path.value, path) or ()
        return _GROUP.sub(lambda group: groups[int(group[1]) - 1] or "", route.rewrite)
    return route.rewrite


def replaced(stem: str, prefix: str, path: str) -> str:
    """The path with `prefix` in place of its `stem`; a slash between it and the rest is never doubled nor lost."""
    rest = path[len(stem) :]
    return prefix.removesuffix("/") + rest if rest else prefix
