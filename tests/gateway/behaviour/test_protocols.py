"""The protocols that pass through a gateway: WebSockets, streams, HTTP/2, gRPC and TLS."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import FullState
from adsum.core.model import Listing
from adsum.gateway.encoding.clusters.tls import MAX_VERIFIED_IPS, TlsPeers, verification_problem
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.upstreams import OutlierSettings, Upstream, UpstreamTls
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from tests.gateway.echo_services import echo_service, listing, serving
from tests.gateway.real_envoy import ENVOY_TIMEOUT, free_port, needs_envoy, running_envoy

pytestmark = needs_envoy
needs_openssl = pytest.mark.needs("openssl")


@contextmanager
def gateway(
    folder: Path,
    *listings: Listing,
    intent: Intent = NO_INTENT,
    addresses: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> Iterator[str]:
    """Runs a gateway in front of these instances and yields its listening address."""
    profile = GatewayProfile((f"127.0.0.1:{free_port()}",), access_log="off", **more)
    snapshot = snapshots.load_snapshot(FullState("e", 1, [(1, item) for item in listings]))
    with running_envoy(NO_RESOURCES.advance(snapshot, intent, addresses), profile, folder):
        yield profile.listen[0]


class _Raw(socketserver.StreamRequestHandler):
    """Answers an upgrade and then echoes; answers any other request in three pieces, one every tenth of a second."""

    def handle(self) -> None:
        headers = {}
        request = self.rfile.readline()
        while (line := self.rfile.readline().strip()) and request:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        if b"upgrade" in headers:
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            while echoed := self.request.recv(1024):
                self.request.sendall(echoed)
        elif request:
            self.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
            for _ in range(3):
                self.wfile.write(b"5\r\npiece\r\n")
                self.wfile.flush()
                time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def grpc_server() -> Iterator[int]:
    """Runs a gRPC server that echoes and speaks only HTTP/2. Yields its port."""
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[_Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def raw() -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), _Raw) as server, serving(server):
        yield server.server_address[1]


def test_websockets_pass_through(tmp_path: Path) -> None:
    with raw() as port, gateway(tmp_path, listing("chat", "c1", port)) as address:
        host, _, number = address.rpartition(":")
        with socket.create_connection((host, int(number)), ENVOY_TIMEOUT) as connection:
            connection.sendall(
                b"GET /chat/room HTTP/1.1\r\nhost: any\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
            )
            answered = b""
            while b"\r\n\r\n" not in answered:
                answered += connection.recv(1024)
            assert answered.startswith(b"HTTP/1.1 101")
            connection.sendall(b"hello")
            assert connection.recv(1024) == b"hello"


def test_an_answer_streams_as_it_is_written(tmp_path: Path) -> None:
    with raw() as port, gateway(tmp_path, listing("feed", "f1", port)) as address:
        connection = http.client.HTTPConnection(address, timeout=ENVOY_TIMEOUT)
        connection.request("GET", "/feed/")
        response = connection.getresponse()
        assert response.read(5) == b"piece"  # This piece arrives before the rest is written.
        assert response.read() == b"piecepiece"
        connection.close()


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # it is generic for type checkers only
    def service(self, details: Any) -> Any:
        if details.method.endswith("Fail"):
            return None
        return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)


def test_grpc_streams_pass_through_by_host(tmp_path: Path) -> None:
    options = [("grpc.default_authority", "greeter.localhost")]
    with (
        grpc_server() as port,
        gateway(tmp_path, listing("greeter", "g1", port, scheme="grpc")) as address,
        grpc.insecure_channel(address, options) as channel,
    ):
        call = channel.stream_stream("/test.Echo/Talk", None, None)(iter([b"a", b"b"]), timeout=ENVOY_TIMEOUT)
        assert list(call) == [b"a", b"b"]
        with pytest.raises(grpc.RpcError) as failed:
            list(channel.stream_stream("/test.Echo/Fail", None, None)(iter([b"a"]), timeout=ENVOY_TIMEOUT))
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_http1_instance_does_not_affect_grpc_instances(tmp_path: Path) -> None:
    with grpc_server() as one, grpc_server() as two, echo_service("web") as web:
        listings = [listing("s", f"g{port}", port, scheme="grpc") for port in (one, two)]
        with gateway(tmp_path, *listings, listing("s", "web", web)) as address:
            with grpc.insecure_channel(address, [("grpc.default_authority", "s.localhost")]) as channel:
                talk = channel.stream_stream("/test.Echo/Talk", None, None)
                for _ in range(20):
                    assert list(talk(iter([b"a"]), timeout=ENVOY_TIMEOUT)) == [b"a"]
            assert {_id(address, "/s/") for _ in range(10)} == {"web"}


def test_instances_of_both_http_versions_share_requests(tmp_path: Path) -> None:
    with echo_service("one") as one, echo_service("two") as two, grpc_server() as other:
        listings = listing("s", "one", one), listing("s", "two", two), listing("s", "h2", other, scheme="h2c")
        with gateway(tmp_path, *listings) as address:
            # The gRPC server got a request over HTTP/2, and resets it because it is not gRPC.
            answers = [_get(address, "/s/") for _ in range(60)]
            assert 5 <= sum(status == 503 for status, _ in answers) <= 40
            assert {json.loads(body)["id"] for status, body in answers if status == 200} == {"one", "two"}


def test_grpc_callers_get_a_grpc_status_when_no_instance_is_reachable(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, listing("greeter", "g1", free_port(), scheme="grpc")) as address,
        grpc.insecure_channel(address, [("grpc.default_authority", "greeter.localhost")]) as channel,
    ):
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Echo/Talk", None, None)(b"a", timeout=ENVOY_TIMEOUT)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert failed.value.details() == (
            "Instance unreachable: the instances of greeter that were tried can't be reached"
        )


def certificate(folder: Path, name: str, common: str, names: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Creates a self-signed certificate for these names. Returns the files of the certificate and of its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={common}", "-addext", f"subjectAltName=DNS:{common},{names}"),
            *("-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@needs_openssl
@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_callers_can_use_tls_and_choose_their_protocol(tmp_path: Path, protocol: str) -> None:
    cert, key = certificate(tmp_path, "gateway", "gateway.test")
    with echo_service("o1") as port:
        files: dict[str, Any] = {"tls_certificate": str(cert), "tls_key": str(key)}
        with gateway(tmp_path, listing("orders", "o1", port), **files) as address:
            host, _, number = address.rpartition(":")
            context = ssl.create_default_context(cafile=str(cert))
            context.set_alpn_protocols([protocol])
            with (
                socket.create_connection((host, int(number)), ENVOY_TIMEOUT) as plain,
                context.wrap_socket(plain, server_hostname="gateway.test") as connection,
            ):
                assert connection.selected_alpn_protocol() == protocol


@needs_openssl
@pytest.mark.parametrize(
    ("tls", "status"),
    [
        (UpstreamTls(ca="/ca", name="orders.test"), 200),
        (UpstreamTls(ca="/ca"), 200),
        (UpstreamTls(verify=False), 200),
        (UpstreamTls(ca="/ca", name="other.test"), 503),
        (UpstreamTls(), 503),
    ],
)
def test_the_certificates_of_services_are_verified(tmp_path: Path, tls: UpstreamTls, status: int) -> None:
    cert, key = certificate(tmp_path, "orders", "orders.test")
    other, _ = certificate(tmp_path, "other", "other.test")
    upstream = Upstream("orders", tls=replace(tls, ca=str(cert) if tls.ca else ""))
    with echo_service("o1", certificate=(cert, key)) as port, echo_service("o2") as plain:
        listings = listing("orders", "o1", port, scheme="https"), listing("plain", "o2", plain)
        with gateway(tmp_path, *listings, intent=Intent((), {"orders": upstream}), roots=str(other)) as address:
            assert _status(address, "/orders/") == status
            assert _status(address, "/plain/") == 200


@needs_openssl
def test_a_service_can_have_instances_with_and_without_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "orders", "orders.test")
    with echo_service("o1", certificate=(cert, key)) as secure, echo_service("o2") as plain:
        listings = listing("orders", "o1", secure, scheme="https"), listing("orders", "o2", plain)
        upstream = Upstream("orders", tls=UpstreamTls(ca=str(cert)))
        with gateway(tmp_path, *listings, intent=Intent((), {"orders": upstream})) as address:
            assert {_id(address, "/orders/") for _ in range(30)} == {"o1", "o2"}


@needs_openssl
def test_certificates_are_verified_against_the_name_or_ip_of_each_instance(tmp_path: Path) -> None:
    foreign = certificate(tmp_path, "foreign", "evil.test")
    right = certificate(tmp_path, "right", "named.test", "DNS:other.test")
    elsewhere = certificate(tmp_path, "elsewhere", "127.0.0.1", "IP:127.0.0.9")
    placed = certificate(tmp_path, "placed", "placed.test")
    authorities = tmp_path / "ca.pem"
    authorities.write_text("".join(chain.read_text() for chain, _ in (foreign, right, elsewhere, placed)))
    upstream = Upstream("orders", tls=UpstreamTls(ca=str(authorities)), outliers=OutlierSettings(consecutive=0))
    with (
        echo_service("named-wrong", certificate=foreign) as a,
        echo_service("named", certificate=right) as b,
        echo_service("ip-wrong", certificate=elsewhere) as c,
        echo_service("ip", certificate=placed) as d,
        echo_service("plain") as e,
    ):
        listings = [
            listing("orders", "named-wrong", a, scheme="https", address="orders.test"),
            listing("orders", "named", b, scheme="https", address="named.test"),
            listing("orders", "ip-wrong", c, scheme="https"),
            listing("orders", "ip", d, scheme="https"),
            listing("orders", "plain", e),
        ]
        addresses = dict.fromkeys(("orders.test", "named.test"), "127.0.0.1")
        intent = Intent((), {"orders": upstream})
        with gateway(tmp_path, *listings, intent=intent, addresses=addresses) as address:
            answered = [_get(address, "/orders/") for _ in range(60)]
            ids = {json.loads(body)["id"] for status, body in answered if status == 200}
            assert ids == {"named", "ip", "plain"}


def _get(address: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=ENVOY_TIMEOUT)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def _status(address: str, path: str) -> int:
    return _get(address, path)[0]


def _id(address: str, path: str) -> str:
    return str(json.loads(_get(address, path)[1])["id"])


@pytest.mark.parametrize(
    ("tls", "roots", "problem"),
    [
        (UpstreamTls(), "", "no file of certificate authorities"),
        (UpstreamTls(name="orders.internal"), "", "no file of certificate authorities"),
        (UpstreamTls(), "/roots.pem", ""),
        (UpstreamTls(ca="/ours.pem"), "", ""),
        (UpstreamTls(verify=False), "", ""),
    ],
)
def test_missing_authorities_are_reported_as_the_problem(tls: UpstreamTls, roots: str, problem: str) -> None:
    found = verification_problem(tls, TlsPeers(has_host_names=True, ips=()), roots)
    assert problem in found
    assert bool(found) is bool(problem)
    assert verification_problem(tls, TlsPeers(has_host_names=False, ips=()), roots) == "", (
        "instances without TLS need no authorities"
    )


def test_too_many_ips_to_verify_are_reported_as_the_problem() -> None:
    many = TlsPeers(has_host_names=False, ips=tuple(f"10.0.{n // 256}.{n % 256}" for n in range(MAX_VERIFIED_IPS + 1)))
    assert "set the upstream's tls.name" in verification_problem(UpstreamTls(), many, "/roots.pem")
    assert verification_problem(UpstreamTls(name="orders.internal"), many, "/roots.pem") == ""
