"""The router finds the operation for a method and a path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from adsum.dialects.native.api.operation import ApiOperation
from adsum.dialects.native.problems import MethodNotAllowed, UnknownPath

MAX_PATH_LENGTH: Final = 1_024
"""Characters of a path. A longer path is unknown."""


class _SegmentNode:
    """A node of the tree of path segments."""

    __slots__ = ("fixed", "operations", "parameter")

    def __init__(self) -> None:
        self.fixed: dict[str, _SegmentNode] = {}
        self.parameter: _SegmentNode | None = None
        self.operations: dict[str, ApiOperation] = {}


class Router:
    """Finds operations, segment by segment. A fixed segment has precedence over a path parameter."""

    def __init__(self, operations: Iterable[ApiOperation]) -> None:
        self._root = _SegmentNode()
        for operation in operations:
            node = self._root
            for segment in operation.path.split("/")[1:]:
                node = _add_segment(node, segment)
            node.operations[operation.method] = operation
            if operation.method == "GET" and not operation.is_endless:
                node.operations["HEAD"] = operation

    def find(self, method: str, path: str) -> tuple[ApiOperation, list[str]]:
        """Returns the operation and the values of its path parameters, in order.

        `path` is the path as it was sent: an escaped slash (%2F) is part of a value. Raises `UnknownPath` and
        `MethodNotAllowed`.
        """
        node, values, segments = self._root, [], path[:MAX_PATH_LENGTH].split("/")[1:]
        if "%" in path:
            segments = [unquote(segment) for segment in segments]
        for segment in segments:
            if segment in node.fixed:
                node = node.fixed[segment]
            elif segment and node.parameter is not None:
                node = node.parameter
                values.append(segment)
            else:
                raise UnknownPath("no operation has this path; /docs lists all operations")
        if method in node.operations:
            return node.operations[method], values
        if node.operations:
            raise MethodNotAllowed(method, sorted(node.operations))
        raise UnknownPath("no operation has this path; /docs lists all operations")


def _add_segment(node: _SegmentNode, segment: str) -> _SegmentNode:
    """Returns the child of a node for a segment of the path of an operation. Adds it if there is none."""
    if segment.startswith("{"):
        if node.parameter is None:
            node.parameter = _SegmentNode()
        return node.parameter
    return node.fixed.setdefault(segment, _SegmentNode())
