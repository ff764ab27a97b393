"""A real Envoy, and real instances behind it, for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx

from adsum import launcher
from adsum.gateway.profile import GatewayProfile
from adsum.run.port import claim_free_port
from tests.support.programs import need

WAIT_TIMEOUT: Final = 30.0
"""Seconds after which a wait of a test fails."""


def until(is_true: Callable[[], object], describe: Callable[[], object] = lambda: "") -> None:
    """Returns when `is_true` returns something true. `describe` explains a failure."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not is_true():
        assert time.monotonic() < deadline, f"not in time: {describe()}"
        time.sleep(0.02)


class NamedHttpServer:
    """An HTTP server that answers with its own name."""

    def __init__(self, name: str) -> None:
        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = name.encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.name = name
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


class TestedEnvoy:
    """One Envoy on free ports, configured by the registry at `xds`."""

    def __init__(self, xds: str, folder: Path, name: str, *, delta: bool, port: int, token: str) -> None:
        program = need("envoy")
        self._claims = claims = [claim_free_port(Random()) for _ in range(2)]
        self.port, admin = port or claims[0].port, claims[1].port
        profile = GatewayProfile(listen=(f"127.0.0.1:{self.port}",), access_log="off")
        file = folder / f"{name}.json"
        file.write_text(json.dumps(_bootstrap(name, profile, xds, admin, token, delta=delta)))
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = launcher.start(
                [program, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"],
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=5.0, trust_env=False)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{admin}", timeout=5.0, trust_env=False)

    def get(self, path: str) -> tuple[int, str]:
        """Returns the status and the body; 0 and the error if there was no answer."""
        try:
            answer = self.http.get(path)
        except httpx.TransportError as error:
            return 0, repr(error)
        return answer.status_code, answer.text

    def answers(self, path: str, *bodies: str) -> None:
        """Returns when exactly these instances answer."""
        until(
            lambda: {self.get(path) for _ in range(6)} == {(200, body) for body in bodies},
            lambda: self.description(path),
        )

    def answers_with(self, path: str, code: int) -> None:
        """Returns when the answer has this status."""
        until(lambda: self.get(path)[0] == code, lambda: self.description(path))

    def description(self, path: str) -> str:
        return f"{self.get(path)}\n{self._log.read_text()[-3000:]}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_TIMEOUT)
        self.http.close()
        self.admin.close()
        for claim in self._claims:
            claim.release()


@contextmanager
def envoy(
    xds: str, folder: Path, name: str = "gw1", *, delta: bool = True, port: int = 0, token: str = ""
) -> Iterator[TestedEnvoy]:
    """Runs an Envoy until the end of the block. It proves by the token who it is."""
    running = TestedEnvoy(xds, folder, name, delta=delta, port=port, token=token)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def instances(*names: str) -> Iterator[dict[str, NamedHttpServer]]:
    """Runs instances until the end of the block."""
    running = {name: NamedHttpServer(name) for name in names}
    try:
        yield running
    finally:
        for server in running.values():
            server.close()


def _bootstrap(name: str, profile: GatewayProfile, xds: str, admin: int, token: str, *, delta: bool) -> dict[str, Any]:
    host, _, port = xds.rpartition(":")
    source = {"resource_api_version": "V3", "ads": {}}
    stream = {
        "api_type": "DELTA_GRPC" if delta else "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {
                "envoy_grpc": {
                    "cluster_name": "registry",
                    "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"}},
                },
                "initial_metadata": [{"key": "authorization", "value": f"Bearer {token}"}] if token else [],
            }
        ],
    }
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    registry = {
        "name": "registry",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": "registry", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    return {
        "node": {"id": name, "cluster": "test", "metadata": profile.metadata()},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"clusters": [registry]},
        "dynamic_resources": {"ads_config": stream, "cds_config": source, "lds_config": source},
        "cluster_manager": {"load_stats_config": {**stream, "api_type": "GRPC"}},
    }
