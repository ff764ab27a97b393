"""Echo services behind a gateway under test. An echo service answers with the request that it received."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from socketserver import BaseServer
from typing import Any

from adsum.core.model import Instance, Listing, Override, Registration, Status
from adsum.core.provenance import Cause, Provenance

PROVENANCE = Provenance(Cause.REGISTERED, "test")
ReceivedRequests = SimpleQueue[dict[str, Any]]


def listing(service: str, id: str, port: int = 8000, *, status: Status = Status.PASSING, **more: Any) -> Listing:
    """Returns an instance as the catalog lists it."""
    registration = Registration(Instance(service, id, more.pop("address", "127.0.0.1"), port, **more))
    if status in (Status.DRAINING, Status.MAINTENANCE):
        return Listing(registration, PROVENANCE, override=Override(status, "test"))
    return Listing(registration, PROVENANCE, checks={"web": status})


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body are sent in one piece: a second piece would wait 40 ms for the ACK of the first.

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        server: Any = self.server
        time.sleep(server.delay)
        path = self.requestline.split()[1]  # `self.path` lacks a doubled slash at its beginning.
        content = {"id": server.id, "method": self.command, "path": path, "headers": dict(self.headers.items())}
        server.received.put(content)
        body = b"" if self.command == "HEAD" else json.dumps(content).encode()
        self.send_response(server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, id: str, status: int, certificate: tuple[Path, Path] | None, received: ReceivedRequests, delay: float
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.id, self.status, self.received, self.delay = id, status, received, delay
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores the error of a gateway that does not trust the certificate and closes the connection."""


@contextmanager
def echo_service(
    id: str,
    status: int = 200,
    certificate: tuple[Path, Path] | None = None,
    received: ReceivedRequests | None = None,
    delay: float = 0.0,
) -> Iterator[int]:
    """Runs a service that answers with that status, over TLS if it has a certificate and key. Yields its port.

    It puts every request into `received` before it answers. An answer takes `delay` seconds.
    """
    requests = SimpleQueue() if received is None else received
    with _Server(id, status, certificate, requests, delay) as server, serving(server):
        yield server.server_address[1]


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Runs a server in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
