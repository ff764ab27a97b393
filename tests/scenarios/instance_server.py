"""An HTTP instance that answers with its id, records its calls, and has the health that a test sets.

`running_instance(id)` runs it in the test's own process; `python -m tests.scenarios.instance_server` runs it on $PORT.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

CHOSEN_HEADER = "x-chosen"
"""The header of a call with the monotonic instant at which the consumer had chosen this instance."""


class ReceivedCall(NamedTuple):
    """A call: the instants when its consumer chose this instance, and when it arrived.

    They are monotonic seconds, of the same clock in every process.
    """

    chosen_at: float
    arrived_at: float


class InstanceServer:
    """The server behind one listening socket."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.port = 0
        self.calls: list[ReceivedCall] = []
        self.health_status = b"200 OK"
        """The status line of /health."""
        self.answer_status = b"200 OK"
        """The status line of all other paths."""
        self.location = ""
        """The target of a redirect by /health; "": none."""
        self.probe_count = 0
        self._busy = 0
        self._ending = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        self._writers.add(writer)
        try:
            while not self._ending:
                head = await reader.readuntil(b"\r\n\r\n")
                self._busy += 1
                try:
                    writer.write(self._answer(head))
                    await writer.drain()
                finally:
                    self._busy -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body, status, extra = self.id.encode(), self.answer_status, b""
        if lines[0].split()[1] == "/health":
            self.probe_count += 1
            status = self.health_status
            extra = b"Location: %b\r\n" % self.location.encode() if self.location else b""
        else:
            self.calls.append(ReceivedCall(float(headers.get(CHOSEN_HEADER, "nan")), time.monotonic()))
        return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, extra, len(body), body)

    async def close(self) -> None:
        """Answers running requests, then closes all connections."""
        self._ending = True
        while self._busy:  # noqa: ASYNC110 - a moment
            await asyncio.sleep(0.01)
        for writer in list(self._writers):
            writer.close()
        while self._writers:  # noqa: ASYNC110 - a moment
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_instance(id: str, port: int = 0) -> AsyncIterator[InstanceServer]:
    """Runs an instance that listens on loopback."""
    found = InstanceServer(id)
    server = await asyncio.start_server(found.serve, "127.0.0.1", port)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await found.close()


async def _main() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with running_instance(os.environ["ADSUM_ID"], int(os.environ["PORT"])):
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(_main())
