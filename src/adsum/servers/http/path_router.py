"""Several applications on one HTTP server, by path prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from adsum.mounts import AsgiApp, FastPath, HttpPath, Reply


class PathRouter:
    """Routes each request to the application with the longest prefix of its path.

    One of `paths` must have the prefix "", which takes what no other prefix takes. Raises `ValueError` if none has, or
    if two paths have the same prefix.
    """

    def __init__(self, paths: Sequence[HttpPath]) -> None:
        prefixes = [path.prefix for path in paths]
        if prefixes.count("") != 1 or len(set(prefixes)) < len(prefixes):
            raise ValueError(f"mounted paths must differ, and one must be the empty one, not {prefixes}")
        self._paths = [
            (path.prefix.encode(), path.app, path.fast_path)
            for path in sorted(paths, key=lambda path: len(path.prefix), reverse=True)
        ]

    @property
    def app(self) -> AsgiApp:
        """The application of the server. With one path it is the application of that path, so routing costs nothing."""
        return self._paths[0][1] if len(self._paths) == 1 else self._serve

    @property
    def fast_path(self) -> FastPath | None:
        """The fast path of the server, None if no path has one.

        If only one path has one, it gets all requests, so that other applications do not slow it. It must not answer
        requests for paths below the prefixes of other applications.
        """
        fast_paths = [fast_path for _, _, fast_path in self._paths if fast_path is not None]
        if len(fast_paths) > 1:
            return _RoutedFastPath([(prefix, fast_path) for prefix, _, fast_path in self._paths])
        return fast_paths[0] if fast_paths else None

    async def _serve(self, scope: dict[str, Any], receive: object, send: object) -> None:
        path: bytes = scope["raw_path"]
        for prefix, app, _ in self._paths:
            if _is_below(path, prefix):
                await app(scope, receive, send)
                return


class _RoutedFastPath:
    """The fast paths of several applications. Each request goes to the one of the longest prefix of its path."""

    def __init__(self, paths: Sequence[tuple[bytes, FastPath | None]]) -> None:
        self._paths = paths

    def prepare(self, headers: Sequence[tuple[bytes, bytes]], certificate: bytes) -> object | None:
        return [fast_path and fast_path.prepare(headers, certificate) for _, fast_path in self._paths]

    def answer(self, method: bytes, target: bytes, prepared: object, body: bytes, peer: str, reply: Reply) -> bool:
        path = target.partition(b"?")[0]
        for (prefix, fast_path), own in zip(self._paths, cast("list[object | None]", prepared), strict=True):
            if _is_below(path, prefix):
                return (
                    fast_path is not None
                    and own is not None
                    and fast_path.answer(method, target, own, body, peer, reply)
                )
        return False


def _is_below(path: bytes, prefix: bytes) -> bool:
    """Returns whether the path is the prefix, or begins with the segments of the prefix."""
    return not prefix or (path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/"))
