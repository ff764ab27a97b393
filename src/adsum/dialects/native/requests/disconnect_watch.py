"""Noticing at once that a caller hung up, while something is awaited on its behalf."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from adsum.dialects.native.asgi import Receive


class DisconnectWatch:
    """Listens for the end of the connection; then `disconnected` is true and `tell` has been called."""

    __slots__ = ("_receive", "_task", "_tell", "disconnected")

    def __init__(self, receive: Receive, tell: Callable[[], None]) -> None:
        self._receive = receive
        self._tell = tell
        self.disconnected = False

    def __enter__(self) -> DisconnectWatch:
        self._task = asyncio.create_task(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._task.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self._tell()
