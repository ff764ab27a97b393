"""The target of checks and routes: a server that answers every request with 200, as fast as Python can.

Run as a process: `target_server.py PORT [BODY]`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

BODY = sys.argv[2].encode() if len(sys.argv) > 2 else b"ok"


class _AnswerProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY))


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_AnswerProtocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
