"""A minimal uvicorn server that answers every request with the same bytes. Run as a process: PORT BODY_FILE."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class BareApp:
    """Answers every request with these bytes."""

    def __init__(self, body: bytes) -> None:
        headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        self._start = {"type": "http.response.start", "status": 200, "headers": headers}
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, _scope: object, _receive: object, send: Send) -> None:
        await send(self._start)
        await send(self._body)


def main(port: int, file: Path) -> None:
    uvicorn.run(
        BareApp(file.read_bytes()),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
