"""From a method and a path to the route that answers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from adsum.dialects.native.api.operation_table import ApiOperation
from adsum.dialects.native.problems import MethodNotAllowed, UnknownPath

MAX_PATH_LENGTH: Final = 1_024
"""Characters of a path; a longer one leads nowhere."""


class _Node:
    """Where the paths with one beginning part."""

    __slots__ = ("fixed", "routes", "value")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.value: _Node | None = None
        self.routes: dict[str, ApiOperation] = {}


class Router:
    """Looks routes up segment by segment; a fixed segment outranks a value."""

    def __init__(self, routes: Iterable[ApiOperation]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for segment in route.path.split("/")[1:]:
                node = _step(node, segment)
            node.routes[route.method] = route
            if route.method == "GET" and not route.is_endless:
                node.routes["HEAD"] = route

    def find(self, method: str, path: str) -> tuple[ApiOperation, list[str]]:
        """The route and the values in its path, in order. Raises `UnknownPath` and `MethodNotAllowed`.

        `path` is as it came: an escaped slash (%2F) is part of a value, and ends no segment.
        """
        node, values, segments = self._root, [], path[:MAX_PATH_LENGTH].split("/")[1:]
        if "%" in path:
            segments = [unquote(segment) for segment in segments]
        for segment in segments:
            if segment in node.fixed:
                node = node.fixed[segment]
            elif segment and node.value is not None:
                node = node.value
                values.append(segment)
            else:
                raise UnknownPath("nothing is here; /docs says what is where")
        if method in node.routes:
            return node.routes[method], values
        if node.routes:
            raise MethodNotAllowed(method, sorted(node.routes))
        raise UnknownPath("nothing is here; /docs says what is where")


def _step(node: _Node, segment: str) -> _Node:
    if segment.startswith("{"):
        if node.value is None:
            node.value = _Node()
        return node.value
    return node.fixed.setdefault(segment, _Node())
