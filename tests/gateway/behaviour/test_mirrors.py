"""Mirrored copies at a real Envoy: callers do not wait for the answers to copies, and every copy is ended."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from adsum.gateway.encoding.routes import route_actions
from adsum.gateway.intent.actions import Mirror, Target
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from tests.gateway.echo_services import echo_service, listing
from tests.gateway.envoy_gateway import running_gateway
from tests.gateway.real_envoy import ENVOY_TIMEOUT, needs_envoy


@needs_envoy
@pytest.mark.parametrize("timeout", [None, 0.3])
def test_a_mirrored_copy_without_an_answer_is_ended(
    timeout: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_actions, "MIRROR_TIMEOUT", 0.3)
    path, to = PathMatch(MatchKind.PREFIX, "/copied"), (Target(Selector("orders")),)
    route = Route("copied", path=path, to=to, mirror=Mirror(Selector("mute")), timeout=timeout)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        echo_service("o1", delay=1.0 if timeout is None else 0.0) as port,
    ):
        mute.settimeout(ENVOY_TIMEOUT)
        listings = [listing("orders", "o1", port), listing("mute", "m1", mute.getsockname()[1])]
        with running_gateway(tmp_path, listings, route) as gateway:
            answer = gateway.get("/copied")
            copy, _ = mute.accept()
            with copy:
                copy.settimeout(ENVOY_TIMEOUT)
                request = copy.recv(65_536)
                assert copy.recv(65_536) == b"", "the gateway has closed the connection"
    assert answer.id == "o1", "the request itself has the timeout of its route"
    assert request.startswith(b"GET /copied ")
    assert b"upstream-rq-timeout" not in request
