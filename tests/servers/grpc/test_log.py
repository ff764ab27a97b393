"""What the gRPC server of a node writes to its log."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

SERVE = """
import sys
from adsum.config.serve import ServeConfig
from adsum.node_process import serve
serve(ServeConfig(listen="127.0.0.1:0", store="memory:", xds=sys.argv[1], node="n", secure=True, data=sys.argv[2]))
"""
WAIT_TIMEOUT = 30.0


def _handshake(port: int) -> None:
    """Does a handshake without a client certificate, until the server closes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), WAIT_TIMEOUT) as raw,
        context.wrap_socket(raw) as connection,
        contextlib.suppress(ssl.SSLError, ConnectionResetError),
    ):
        assert connection.read(1) == b""


def test_failed_handshakes_write_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-c", SERVE, f"127.0.0.1:{port}", str(tmp_path / "node")]
        node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        refused, deadline = 0, time.monotonic() + WAIT_TIMEOUT
        while refused < 5:
            try:
                _handshake(port)
                refused += 1
            except ConnectionRefusedError:  # The node does not listen yet.
                assert node.poll() is None, log.read_text()
                time.sleep(0.05)
            assert time.monotonic() < deadline, log.read_text()
    finally:
        node.terminate()
        node.wait(WAIT_TIMEOUT)
    lines = [line for line in log.read_text().splitlines() if "ssl_transport_security" in line]
    assert lines == []
