"""Listening sockets that refuse new connections and lose none that are queued."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from adsum.envoy.restart.accept_drain import close_sockets, queued_connections, refuse_new_connections


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _refuse(server: socket.socket) -> list[socket.socket]:
    # The process is our own, and the duplicates come after its own sockets.
    sockets = refuse_new_connections(os.getpid(), {server.getsockname()[1]}, 1)
    if not sockets:
        pytest.skip("this system does not permit it")
    return sockets


def test_new_connections_are_refused_and_queued_ones_are_kept(server: socket.socket) -> None:
    with socket.create_connection(server.getsockname(), 5) as waiting:
        sockets = _refuse(server)
        assert queued_connections(sockets) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname(), 5)
        taken, _ = server.accept()
        assert queued_connections(sockets) == 0
        close_sockets(sockets)
        server.close()
        with taken:
            waiting.sendall(b"ask")
            assert taken.recv(3) == b"ask"


def test_other_ports_still_accept(server: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        close_sockets(_refuse(server))
        socket.create_connection(other.getsockname(), 5).close()


def test_a_process_that_has_exited_or_does_not_listen_yields_no_sockets() -> None:
    assert refuse_new_connections(2**22 + 1, {1}, 8) == []
    assert refuse_new_connections(os.getpid(), {1}, 8) == []
