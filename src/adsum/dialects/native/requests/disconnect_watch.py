"""A disconnect watch notices that the caller closed the connection, while a request waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from adsum.dialects.native.asgi import Receive
from adsum.ports import OnDisconnect


class DisconnectWatch:
    """Waits for the end of the connection within a `with` block: sets `disconnected`, and calls `on_disconnect`."""

    __slots__ = ("_on_disconnect", "_receive", "_server", "_task", "disconnected")

    def __init__(self, receive: Receive, on_disconnect: Callable[[], None], server: OnDisconnect | None = None) -> None:
        """`server` reports the end of the connection; without it a task receives until then."""
        self._receive = receive
        self._on_disconnect = on_disconnect
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self.disconnected = False

    def __enter__(self) -> DisconnectWatch:
        if self._server is None:
            self._task = asyncio.create_task(self._listen())
        elif not self._server(self._note_disconnect):
            self._note_disconnect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._server is not None:
            self._server(None)

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._note_disconnect()

    def _note_disconnect(self) -> None:
        self.disconnected = True
        self._on_disconnect()
