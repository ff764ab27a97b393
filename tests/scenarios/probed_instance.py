"""An instance that knows which process probes it, and may be out of some processes' reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ProbedInstance:
    """What one listening socket answers; `pids` says which processes may ask, and their names."""

    def __init__(self, pids: Callable[[], Mapping[int, str]]) -> None:
        self.port = 0
        self.probed_by: list[str] = []
        """Who probed, in order."""
        self.unreachable_from: set[str] = set()
        """Whose probes come, as far as they can tell, nowhere."""
        self._pids = pids
        self._writers: set[asyncio.StreamWriter] = set()

    def sole_prober(self, count: int) -> str:
        """Who made all of the last `count` probes; "" if there were fewer, or several made them."""
        last = self.probed_by[-count:]
        return last[0] if len(last) == count and len(set(last)) == 1 else ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection, or never."""
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                prober = self._asking(writer.get_extra_info("peername")[1])
                self.probed_by.append(prober)
                if prober in self.unreachable_from:
                    await reader.read()  # Until they give up.
                else:
                    writer.write(ANSWER)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()

    def close(self) -> None:
        """Hang up on everybody."""
        for writer in self._writers:
            writer.transport.abort()

    def _asking(self, port: int) -> str:
        """Whose end of the connection that port is."""
        socket = f"socket:[{_inode(port, self.port)}]"
        for pid, name in self._pids().items():
            with suppress(OSError):  # It may end meanwhile.
                for file in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        if str(file.readlink()) == socket:
                            return name
        return "somebody"


def _inode(port: int, to: int) -> str:
    """Of the socket at that end of a connection on loopback, as the system counts them."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(address.rpartition(":")[2], 16) for address in fields[1:3]] == [port, to]:
            return fields[9]
    return ""


@asynccontextmanager
async def probed_instance(pids: Callable[[], Mapping[int, str]]) -> AsyncIterator[ProbedInstance]:
    """One that listens on loopback."""
    found = ProbedInstance(pids)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.close()
