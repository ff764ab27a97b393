"""Finding the ports on which this process listens."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from adsum.core.errors import Invalid
from adsum.integrations import listening_sockets
from adsum.integrations.listening_sockets import own_ports, own_socket_name, wait_until_listening


def listener() -> socket.socket:
    listening_socket = socket.socket()
    listening_socket.bind(("127.0.0.1", 0))
    listening_socket.listen()
    return listening_socket


async def test_the_port_of_this_process_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as listening_socket:
        port = listening_socket.getsockname()[1]
        assert port in (own_ports() or ())
        monkeypatch.setattr(listening_sockets, "own_ports", lambda: {port})
        assert await wait_until_listening(None) == port
        assert await wait_until_listening(port) == port
    monkeypatch.undo()
    assert port not in (own_ports() or ())


def test_each_socket_has_a_name_of_its_own() -> None:
    with listener() as listening_socket:
        port = listening_socket.getsockname()[1]
        name = own_socket_name(port)
        assert name
        with listening_socket.dup():
            assert own_socket_name(port) == name
    assert own_socket_name(port) == ""
    with listener() as another:
        assert own_socket_name(another.getsockname()[1]) not in ("", name)


def test_a_listening_parent_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as listening_socket:
        port = listening_socket.getsockname()[1]
        assert not listening_sockets.parent_listens(port)
        monkeypatch.setattr(os, "getppid", os.getpid)
        assert listening_sockets.parent_listens(port)
    assert not listening_sockets.parent_listens(port)
    monkeypatch.setattr(os, "getppid", lambda: 2**30)
    assert not listening_sockets.parent_listens(port), "the system does not tell"


async def test_waiting_ends_once_the_port_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[set[int] | None] = []

    def poll() -> set[int] | None:
        polls.append(own_ports())
        return polls[-1]

    monkeypatch.setattr(listening_sockets, "own_ports", poll)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    waiting = asyncio.create_task(wait_until_listening(port))
    async with asyncio.timeout(20.0):
        while len(polls) < 3 and not waiting.done():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.005)
    assert not waiting.done(), "a bound socket does not listen yet"
    bound.listen()
    assert await waiting == port
    bound.close()


async def test_the_environment_chooses_among_several_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", lambda: {8000, 9090})
    monkeypatch.delenv("PORT", raising=False)
    with pytest.raises(Invalid, match="port: must be given: this process listens on 8000, 9090"):
        await wait_until_listening(None)
    monkeypatch.setenv("PORT", "8000")
    assert await wait_until_listening(None) == 8000


async def test_the_environment_names_the_port_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", lambda: None)
    monkeypatch.delenv("PORT", raising=False)
    monkeypatch.delenv("UVICORN_PORT", raising=False)
    with pytest.raises(Invalid, match="in the variable PORT"):
        await wait_until_listening(None)
    with listener() as listening_socket:
        port = listening_socket.getsockname()[1]
        monkeypatch.setenv("UVICORN_PORT", str(port))
        assert await wait_until_listening(None) == port, "a server answers there"


async def test_a_proxy_in_front_counts_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", set)
    monkeypatch.setattr(listening_sockets, "PROXY_ACCEPTED_AFTER", 0.1)
    with listener() as listening_socket:
        assert await wait_until_listening(listening_socket.getsockname()[1]) == listening_socket.getsockname()[1]
