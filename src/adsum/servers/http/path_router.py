"""Several applications on one HTTP server, by path prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adsum.mounts import AsgiApp, FastPathReply, HttpPath


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
    def fast_path(self) -> FastPathReply | None:
        """The fast path of the server, None if no path has one.

        If only one path has one, it gets every plain GET, so that other applications do not slow it. It must return
        None for paths below the prefixes of other applications.
        """
        fast_paths = [fast_path for _, _, fast_path in self._paths if fast_path is not None]
        if len(fast_paths) > 1:
            return self._reply
        return fast_paths[0] if fast_paths else None

    async def _serve(self, scope: dict[str, Any], receive: object, send: object) -> None:
        path: bytes = scope["raw_path"]
        for prefix, app, _ in self._paths:
            if _is_below(path, prefix):
                await app(scope, receive, send)
                return

    def _reply(
        self, target: bytes, headers: Sequence[tuple[bytes, bytes]], certificate: bytes
    ) -> tuple[int, bytes] | None:
        path = target.partition(b"?")[0]
        for prefix, _, fast_path in self._paths:
            if _is_below(path, prefix):
                return fast_path(target, headers, certificate) if fast_path is not None else None
        return None


def _is_below(path: bytes, prefix: bytes) -> bool:
    """Returns whether the path is the prefix, or begins with the segments of the prefix."""
    return not prefix or (path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/"))
