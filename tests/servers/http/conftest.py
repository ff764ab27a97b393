"""The tests of servers with and without TLS run on both event loops: asyncio's, and the one of a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.servers.http.serving import HttpServing
from tests.support.server_certificates import FakeServerCertificates


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if {"serving", "tls"} & set(getattr(item, "fixturenames", ())):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(params=["plain", "tls"])
def serving(request: pytest.FixtureRequest) -> HttpServing:
    return HttpServing(FakeServerCertificates() if request.param == "tls" else None)


@pytest.fixture
def tls() -> HttpServing:
    return HttpServing(FakeServerCertificates())
