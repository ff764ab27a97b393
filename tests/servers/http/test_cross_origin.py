"""Requests that a foreign web page causes a browser to send are refused."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from adsum.servers.http import AllowedHosts, listen
from adsum.servers.http.cross_origin import MAX_CACHED_HOSTS, is_cross_origin
from tests.support.registry_daemon import RunningDaemon


async def _request(daemon: RunningDaemon, head: str) -> tuple[int, dict[str, object]]:
    host, port = daemon.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + b"connection: close\r\n\r\n")
    async with asyncio.timeout(20):
        response = await reader.read()
    writer.close()
    status_and_headers, _, body = response.partition(b"\r\n\r\n")
    return int(status_and_headers.split(b" ", 2)[1]), json.loads(body)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LocalHost:23786",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1:23786",
        "127.9.9.9",
        "[::1]:80",
        "192.168.1.5:80",
        "registry.example",
        "Registry.Example:8080",
        "box:80",
    ],
)
def test_a_host_name_of_the_server_is_allowed(host: str) -> None:
    hosts = AllowedHosts(["registry.example", "box"])
    assert host.encode() in hosts.cached or hosts.allows(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:23786",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "registry.example.evil",
        "[evil.example]:80",
        "\xff",
        "1.2.3",
        "a b",
        "@localhost",
    ],
)
def test_any_other_host_name_is_refused(host: str) -> None:
    hosts = AllowedHosts(["registry.example"])
    assert not hosts.allows(host.encode("latin-1"))
    assert host.encode("latin-1") not in hosts.cached


def test_the_cache_of_allowed_hosts_is_bounded() -> None:
    hosts = AllowedHosts([])
    for port in range(2 * MAX_CACHED_HOSTS):
        assert hosts.allows(b"localhost:%d" % port)
    assert len(hosts.cached) == MAX_CACHED_HOSTS


@pytest.mark.parametrize(
    ("address", "names", "is_checked"),
    [("127.0.0.1:0", (), True), ("localhost:0", (), True), ("0.0.0.0:0", (), False), ("0.0.0.0:0", ("box",), True)],
)
def test_host_is_checked_on_loopback_or_where_names_are_configured(
    address: str, names: tuple[str, ...], is_checked: bool
) -> None:
    sockets = listen(address)
    try:
        assert (AllowedHosts.for_sockets(address, sockets, names) is not None) is is_checked
    finally:
        for sock in sockets:
            sock.close()


def test_the_host_in_the_listen_address_is_allowed() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        hosts = AllowedHosts.for_sockets("box:80", [bound], ())
    assert hosts is not None
    assert hosts.allows(b"box:80")


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        (b"PUT", [], False),
        (b"PUT", [(b"sec-fetch-site", b"same-origin")], False),
        (b"PUT", [(b"sec-fetch-site", b"none")], False),
        (b"PUT", [(b"sec-fetch-site", b"cross-site")], True),
        (b"POST", [(b"sec-fetch-site", b"same-site")], True),
        (b"GET", [(b"sec-fetch-site", b"cross-site")], False),
        (b"DELETE", [(b"host", b"localhost:1"), (b"origin", b"http://localhost:1")], False),
        (b"DELETE", [(b"host", b"localhost:1"), (b"origin", b"http://localhost:2")], True),
        (b"POST", [(b"host", b"localhost"), (b"origin", b"null")], True),
    ],
)
def test_a_cross_origin_request_is_recognized_unless_its_method_is_safe(
    method: bytes, headers: list[tuple[bytes, bytes]], expected: bool
) -> None:
    assert is_cross_origin(method, headers) is expected


@pytest.mark.parametrize("path", ["/api/v1/services/orders", "/api/v1/services", "/healthz", "/docs"])
async def test_a_rebound_host_name_is_refused_on_every_path(daemon: RunningDaemon, path: str) -> None:
    status, problem = await _request(daemon, f"GET {path} HTTP/1.1\r\nhost: evil.example:23786\r\n")
    assert (status, problem["status"]) == (421, 421)
    assert "'evil.example:23786'" in str(problem["detail"])
    assert "--host-name" in str(problem["detail"])


async def test_a_write_for_a_page_of_another_site_is_refused(daemon: RunningDaemon) -> None:
    renew = "POST /api/v1/services/orders/instances/o1/renew HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n"
    assert (await _request(daemon, renew + "origin: https://evil.example\r\n"))[0] == 403
    assert (await _request(daemon, renew + "sec-fetch-site: cross-site\r\n"))[0] == 403
    assert (await _request(daemon, renew))[0] == 404, "no such instance; the request itself is allowed"


async def test_a_configured_host_name_is_allowed() -> None:
    config = ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", host_name=("registry.example",))
    daemon = RunningDaemon(config)
    try:
        assert (await _request(daemon, "GET /api/v1/status HTTP/1.1\r\nhost: registry.example\r\n"))[0] == 200
    finally:
        daemon.stop()


def test_a_configured_host_name_has_no_port() -> None:
    with pytest.raises(Invalid, match="host_name"):
        ServeConfig(host_name=("registry.example:80",))
