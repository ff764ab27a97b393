"""An instance that knows which process probes it, and can be unreachable from some processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ProbedInstance:
    """The server behind one listening socket. `pids` returns the processes that may probe, with their names."""

    def __init__(self, pids: Callable[[], Mapping[int, str]]) -> None:
        self.port = 0
        self.probed_by: list[str] = []
        """The names of the probing processes, in order."""
        self.unreachable_from: set[str] = set()
        """The names of processes whose probes get no answer."""
        self._pids = pids
        self._writers: set[asyncio.StreamWriter] = set()

    def sole_prober(self, count: int) -> str:
        """Returns the process that made all of the last `count` probes; "" if there were fewer or several did."""
        last = self.probed_by[-count:]
        return last[0] if len(last) == count and len(set(last)) == 1 else ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the one request of a connection, or never answers."""
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                prober = self._prober(writer.get_extra_info("peername")[1])
                self.probed_by.append(prober)
                if prober in self.unreachable_from:
                    await reader.read()  # Until the prober gives up.
                else:
                    writer.write(ANSWER)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()

    def close(self) -> None:
        """Aborts all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def _prober(self, port: int) -> str:
        """Returns the name of the process that owns that port of a connection."""
        socket = f"socket:[{_inode(port, self.port)}]"
        for pid, name in self._pids().items():
            with suppress(OSError):  # The process may end meanwhile.
                for file in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        if str(file.readlink()) == socket:
                            return name
        return "unknown"


def _inode(port: int, to: int) -> str:
    """Returns the inode of the socket with that local port of a loopback connection to the port `to`."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(address.rpartition(":")[2], 16) for address in fields[1:3]] == [port, to]:
            return fields[9]
    return ""


@asynccontextmanager
async def probed_instance(pids: Callable[[], Mapping[int, str]]) -> AsyncIterator[ProbedInstance]:
    """Runs a probed instance that listens on loopback."""
    found = ProbedInstance(pids)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.close()
