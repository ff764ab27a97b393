"""The servers that are measured: a registry node, a bare uvicorn, and etcd. Each is a process of its own."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from benchmarks.harness import bare_sender, bare_server, programs
from benchmarks.harness.processes import MeasuredProcess, free_port, is_listening

_SERVE: Final = """
import sys
from adsum.config.serve import ServeConfig
from adsum.node_process import serve
serve(ServeConfig(listen=sys.argv[1], store=sys.argv[2], xds=sys.argv[3], node="bench"))
"""
"""The program of a node: what `adsum serve` does with the default settings, including the log."""

_SERVE_SECURE: Final = """
import sys
from adsum.config.serve import ServeConfig
from adsum.node_process import serve
serve(ServeConfig(listen=sys.argv[1], store=sys.argv[2], xds="off", node="bench", secure=True, data=sys.argv[3]))
"""
"""The program of a node with TLS and tokens: what `adsum serve --secure` does."""

NO_ETCD: Final = programs.missing_reason("etcd")
REQUEST_TIMEOUT: Final = 60.0
"""Seconds that one request may take."""


class BenchmarkNode(MeasuredProcess):
    """A registry node that is ready. `store` is a URL; the log goes to the folder."""

    def __init__(self, folder: Path, store: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.xds = f"127.0.0.1:{free_port()}"
        arguments = [f"127.0.0.1:{self.port}", store, self.xds]
        super().__init__("adsum", [sys.executable, "-c", _SERVE, *arguments], folder)
        self.start_seconds = self.wait_until(lambda: is_ready(self.url))
        """Seconds from the start of the process until it was ready."""

    def get(self, path: str) -> bytes:
        """Sends a GET and returns the body of the answer. Raises `HTTPError`."""
        return self._send(Request(self.url + path))

    def put(self, path: str, body: Mapping[str, object]) -> bytes:
        """Sends a PUT of JSON and returns the body of the answer. Raises `HTTPError`."""
        headers = {"content-type": "application/json"}
        return self._send(Request(self.url + path, json.dumps(body).encode(), headers, method="PUT"))

    def post(self, path: str, body: bytes) -> bytes:
        """Sends a POST of JSON and returns the body of the answer. Raises `HTTPError`."""
        return self._send(Request(self.url + path, body, {"content-type": "application/json"}))

    def token_header(self, name: str = "bench") -> bytes:
        """Issues a token of that name that may do everything, and returns the header line with it."""
        body = json.dumps({"name": name, "scopes": ["admin"]}).encode()
        issued = json.loads(self.post("/api/v1/tokens", body))
        return f"authorization: Bearer {issued['token']}\r\n".encode()

    def _send(self, request: Request) -> bytes:
        with urlopen(request, timeout=REQUEST_TIMEOUT) as answer:
            body: bytes = answer.read()
        return body


class SecureBenchmarkNode(MeasuredProcess):
    """A registry node with TLS and tokens that is ready."""

    def __init__(self, folder: Path, store: str) -> None:
        self.port = free_port()
        security = folder / "secure" / "security"
        arguments = [f"127.0.0.1:{self.port}", store, str(security.parent)]
        super().__init__("adsum-tls", [sys.executable, "-c", _SERVE_SECURE, *arguments], folder)
        authority = security / "authority.pem"
        self.wait_until(authority.exists)
        self.context = ssl.create_default_context(cafile=str(authority))
        """Trusts the node."""
        self.wait_until(lambda: is_ready(f"https://127.0.0.1:{self.port}", self.context))
        self.wait_until((security / "admin-token").exists)
        self.headers = f"authorization: Bearer {(security / 'admin-token').read_text().strip()}\r\n".encode()
        """The lines that prove to the node who calls."""


def is_ready(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Returns whether the node's catalog is loaded."""
    try:
        with urlopen(f"{url}/readyz", timeout=5.0, context=context) as answer:
            status: int = answer.status
            return status == 200
    except (HTTPError, URLError, OSError):
        return False


def sqlite(folder: Path, name: str = "bench") -> str:
    """Returns the URL of a SQLite store in the folder."""
    return f"sqlite:///{folder / name}.db"


class BareServer(MeasuredProcess):
    """uvicorn with uvloop and httptools, and an application that only answers with these bytes."""

    def __init__(self, folder: Path, body: bytes) -> None:
        file = folder / "bare.body"
        file.write_bytes(body)
        self.port = free_port()
        super().__init__("bare", [sys.executable, str(bare_server.__file__), str(self.port), str(file)], folder)
        self.wait_until(partial(is_listening, self.port))


class BareSender(MeasuredProcess):
    """A process that sends these bytes over each of its connections once in every interval, in as many slots."""

    def __init__(self, folder: Path, data: bytes, interval: float, slots: int) -> None:
        file = folder / "sender.data"
        file.write_bytes(data)
        self.port = free_port()
        arguments = [str(self.port), str(interval), str(slots), str(file)]
        super().__init__("sender", [sys.executable, str(bare_sender.__file__), *arguments], folder)
        self.wait_until(partial(is_listening, self.port))


def has_etcd() -> bool:
    return programs.find("etcd") is not None


class BenchmarkEtcd(MeasuredProcess):
    """One member of etcd with its defaults (each write is synced), on a new folder beside the node's store.

    It is the newest version on PATH. Raises `ProgramMissing`.
    """

    def __init__(self, folder: Path) -> None:
        self.port, peer = free_port(), free_port()
        client, member = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer}"
        command = {
            "--name": "bench",
            "--data-dir": str(folder / f"etcd-{self.port}"),
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": member,
            "--initial-advertise-peer-urls": member,
            "--initial-cluster": f"bench={member}",
            "--log-level": "error",
        }
        program = str(programs.need("etcd").path)
        super().__init__("etcd", [program, *(part for pair in command.items() for part in pair)], folder)
        self.wait_until(lambda: is_healthy(self.port))


def is_healthy(port: int) -> bool:
    """Returns whether etcd has a leader and can write."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5.0) as answer:
            body: bytes = answer.read()
            return b"true" in body
    except (HTTPError, URLError, OSError):
        return False
