"""A disconnect watch notices that the caller closed the connection, while a request waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from adsum.dialects.native.asgi import Receive


class DisconnectWatch:
    """Waits for the end of the connection within a `with` block: sets `disconnected`, and calls `on_disconnect`."""

    __slots__ = ("_on_disconnect", "_receive", "_task", "disconnected")

    def __init__(self, receive: Receive, on_disconnect: Callable[[], None]) -> None:
        self._receive = receive
        self._on_disconnect = on_disconnect
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
        self._on_disconnect()
