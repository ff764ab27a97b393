"""The listeners of a node: connection limits within the file descriptors, and what happens when an address is taken."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from adsum.config.serve import ServeConfig
from adsum.core.errors import AdsumError
from adsum.dialects.dialect import Dialect
from adsum.file_descriptors import RESERVED_DESCRIPTORS
from adsum.listeners import Listeners
from adsum.mounts import GrpcListener, HttpListener, HttpPath, Mount, TcpListener
from tests.support.server_certificates import FakeServerCertificates


class MountingDialect(Dialect):
    """A dialect of given mounts."""

    def __init__(self, *mounts: Mount) -> None:
        self._mounts = mounts

    def mounts(self) -> Sequence[Mount]:
        return self._mounts


async def _app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


async def _serve(*_: object) -> None:
    raise AssertionError


def _listeners(
    *mounts: Mount,
    max_connections: int = 100,
    descriptors: int = 10_000,
    certificates: FakeServerCertificates | None = None,
) -> Listeners:
    config = ServeConfig(listen="127.0.0.1:0", store="memory:", node="n", max_connections=max_connections, probes=1)
    dialects = {"native": MountingDialect(HttpPath("", _app)), "test": MountingDialect(*mounts)}
    return Listeners(config, dialects, descriptors, lambda _: None, certificates)


@pytest.mark.parametrize(
    ("descriptors", "http", "grpc"), [(100_000, 400, 300), (400, 147, 110)], ids=["enough", "scarce"]
)
async def test_listeners_share_the_descriptors_in_proportion_to_what_they_want(
    descriptors: int, http: int, grpc: int
) -> None:
    limits: list[int] = []
    mounts: list[Mount] = [
        GrpcListener("127.0.0.1:0", "", {}, 1_024, 300, limits.append),
        TcpListener("127.0.0.1:0", "", _serve, 100),
    ]
    listeners = _listeners(*mounts, max_connections=400, descriptors=descriptors)
    listeners.bind()
    await listeners.start()
    try:
        assert listeners.http_server.max_connections == http
        assert limits == [grpc]
        assert len(listeners.addresses["test"]) == 2
    finally:
        await listeners.stop()
        await listeners.stop()


async def test_a_new_limit_of_connections_applies_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    listeners = _listeners(descriptors=2 * RESERVED_DESCRIPTORS)
    listeners.bind()
    await listeners.start()
    with caplog.at_level(logging.INFO, "adsum.listeners"):
        listeners.reconfigure(
            ServeConfig(listen="127.0.0.1:0", store="memory:", node="n", max_connections=20, probes=1)
        )
    assert listeners.http_server.max_connections == 20
    assert caplog.messages == ["up to 20 HTTP connections, and 0 of other listeners, at a time"]
    with caplog.at_level(logging.WARNING, "adsum.listeners"):
        listeners.reconfigure(
            ServeConfig(listen="127.0.0.1:0", store="memory:", node="n", max_connections=900, probes=1)
        )
    assert "raise it (LimitNOFILE= of systemd" in caplog.messages[-1]
    await listeners.stop()


async def test_the_http_server_is_closed_when_another_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listeners = _listeners(TcpListener(address, "choose another one with --test", _serve, 1))
        listeners.bind()
        with pytest.raises(AdsumError, match=f"can't listen on {address}: .* in use; choose another one with --test"):
            await listeners.start()
        await listeners.stop()
    port = int(listeners.urls[0].rpartition(":")[2])
    socket.create_server(("127.0.0.1", port)).close()


def test_the_http_server_exists_only_once_it_is_started() -> None:
    listeners = _listeners()
    with pytest.raises(RuntimeError, match="not open yet"):
        _ = listeners.http_server


async def test_with_certificates_every_http_and_grpc_listener_speaks_tls() -> None:
    certificates = FakeServerCertificates()
    mounts: list[Mount] = [
        HttpListener("127.0.0.1:0", "", _app, 10),
        GrpcListener("127.0.0.1:0", "", {}, 1_024, 10, lambda _: None),
    ]
    listeners = _listeners(*mounts, certificates=certificates)
    listeners.bind()
    await listeners.start()
    try:
        assert listeners.urls[0].startswith("https://127.0.0.1:")
        context = certificates.client_context(certificates.issue_client())
        context.set_alpn_protocols(["h2", "http/1.1"])
        for address in (listeners.urls[0].removeprefix("https://"), *listeners.addresses["test"]):
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")
            writer.transport.abort()
    finally:
        await listeners.stop()
