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
        self._paths = sorted(
            ((path.prefix.encode(), path.app) for path in paths), key=lambda path: len(path[0]), reverse=True
        )
        self._fast_paths = sorted(
            ((path.prefix.encode(), path.fast_path) for path in paths if path.fast_path is not None),
            key=lambda path: len(path[0]),
            reverse=True,
        )

    @property
    def app(self) -> AsgiApp:
        """The application for the server: the only one itself, so that a single mount costs nothing."""
        return self._paths[0][1] if len(self._paths) == 1 else self._serve

    @property
    def fast_path(self) -> FastPathReply | None:
        """The fast path for the server: the only one itself, so that a second application does not slow it."""
        if len(self._fast_paths) > 1:
            return self._reply
        return self._fast_paths[0][1] if self._fast_paths else None

    async def _serve(self, scope: dict[str, Any], receive: object, send: object) -> None:
        path: bytes = scope["raw_path"]
        for prefix, app in self._paths:
            if _is_below(path, prefix):
                await app(scope, receive, send)
                return

    def _reply(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, bytes] | None:
        path = target.partition(b"?")[0]
        for prefix, reply in self._fast_paths:
            if _is_below(path, prefix):
                answer = reply(target, headers)
                if answer is not None:
                    return answer
        return None


def _is_below(path: bytes, prefix: bytes) -> bool:
    return not prefix or (path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/"))
