"""Look-ups by the resolver never hold up a node for long."""

from __future__ import annotations

import socket
import threading

import pytest

from adsum.certificates.lookups import look_up
from adsum.certificates.server_names import find_host_names


def test_a_look_up_returns_its_result() -> None:
    assert look_up(lambda: "box.example", "box") == "box.example"


def test_a_look_up_that_fails_or_takes_too_long_returns_the_default() -> None:
    def fail() -> str:
        raise OSError("no name server")

    def refuse() -> str:
        return str(socket.getaddrinfo(f"{'a' * 64}.example", None))

    answered = threading.Event()

    def wait() -> str:
        answered.wait()
        return "box.example"

    assert look_up(fail, "box") == "box"
    assert look_up(refuse, "box") == "box"
    assert look_up(wait, "box", timeout=0.01) == "box"
    answered.set()


def test_a_host_without_a_usable_name_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my box")
    monkeypatch.setattr(socket, "getfqdn", lambda: "box.example")
    assert find_host_names() == ["box.example"]
