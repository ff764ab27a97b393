"""Listening sockets that take nothing new and lose nothing that they have."""

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


def _quiet(server: socket.socket) -> list[socket.socket]:
    # We are the process: the socket that we get is soon one that we hold.
    found = refuse_new_connections(os.getpid(), {server.getsockname()[1]}, 1)
    if not found:
        pytest.skip("this system does not allow it")
    return found


def test_new_connections_are_refused_and_those_that_wait_are_not_lost(server: socket.socket) -> None:
    with socket.create_connection(server.getsockname(), 5) as waiting:
        held = _quiet(server)
        assert queued_connections(held) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname(), 5)
        taken, _ = server.accept()
        assert queued_connections(held) == 0
        close_sockets(held)
        server.close()
        with taken:
            waiting.sendall(b"ask")
            assert taken.recv(3) == b"ask"


def test_other_ports_go_on(server: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        close_sockets(_quiet(server))
        socket.create_connection(other.getsockname(), 5).close()


def test_a_process_that_has_ended_or_listens_nowhere_is_left_alone() -> None:
    assert refuse_new_connections(2**22 + 1, {1}, 8) == []
    assert refuse_new_connections(os.getpid(), {1}, 8) == []
