"""A real Envoy for tests, with compiled resources as its static configuration."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse
from google.protobuf import json_format

from adsum.envoy.process.bootstrap import layered_runtime
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import CompiledResources
from adsum.gateway.resources.resources import Resource, ResourceKind
from tests.support.programs import need

MESSAGE_TYPES: Final = {
    ResourceKind.CLUSTER: Cluster,
    ResourceKind.ASSIGNMENT: ClusterLoadAssignment,
    ResourceKind.SECRET: Secret,
    ResourceKind.FILTER: TypedExtensionConfig,
    ResourceKind.LISTENER: Listener,
    ResourceKind.ROUTES: RouteConfiguration,
}
ENVOY_TIMEOUT: Final = 60.0
"""Seconds within which an Envoy must start, answer and end."""

needs_envoy = pytest.mark.needs("envoy")


def free_port() -> int:
    """Returns a free port of the loopback interface, below the system's ephemeral ports."""
    while True:
        # Hypothesis seeds the global generator of `random`, so that tests in two checkouts would choose the same ports.
        port = random.SystemRandom().randint(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def decode_resource(resource: Resource) -> Any:
    """Returns the message of an encoded resource."""
    message = MESSAGE_TYPES[resource.kind]()
    DeltaDiscoveryResponse.FromString(resource.delta).resources[0].resource.Unpack(message)
    return message


def bootstrap(compiled: CompiledResources, profile: GatewayProfile) -> Any:
    """Returns a bootstrap with all resources of a gateway. Every response has the name of its route in `x-route`."""
    tables = compiled.gateway_resources(profile)
    message = Bootstrap()
    json_format.ParseDict(layered_runtime(), message.layered_runtime)
    for name, resource in tables[ResourceKind.CLUSTER].items():
        cluster = decode_resource(resource)
        cluster.type = Cluster.STATIC
        cluster.ClearField("eds_cluster_config")
        if name in tables[ResourceKind.ASSIGNMENT]:
            cluster.load_assignment.CopyFrom(decode_resource(tables[ResourceKind.ASSIGNMENT][name]))
        message.static_resources.clusters.append(cluster)
    message.static_resources.secrets.extend(map(decode_resource, tables[ResourceKind.SECRET].values()))
    (routes,) = map(decode_resource, tables[ResourceKind.ROUTES].values())
    routes.response_headers_to_add.add().header.CopyFrom(_header("x-route", "%ROUTE_NAME%"))
    filters = {name: decode_resource(resource) for name, resource in tables[ResourceKind.FILTER].items()}
    for resource in tables[ResourceKind.LISTENER].values():
        message.static_resources.listeners.append(_listener(decode_resource(resource), routes, filters))
    return message


def _header(key: str, value: str) -> Any:
    return HeaderValue(key=key, value=value)


def _listener(listener: Any, routes: Any, filters: Mapping[str, Any]) -> Any:
    manager = HttpConnectionManager()
    config = listener.filter_chains[0].filters[0].typed_config
    config.Unpack(manager)
    manager.route_config.CopyFrom(routes)
    for filter in manager.http_filters:
        if filter.HasField("config_discovery"):
            filter.typed_config.CopyFrom(filters[filter.name].typed_config)
    config.Pack(manager)
    if listener.filter_chains[0].HasField("transport_socket"):
        transport = listener.filter_chains[0].transport_socket.typed_config
        context = DownstreamTlsContext()
        transport.Unpack(context)
        # A static secret is found by its name alone.
        context.common_tls_context.tls_certificate_sds_secret_configs[0].ClearField("sds_config")
        transport.Pack(context)
    return listener


def validation_error(compiled: CompiledResources, profile: GatewayProfile, folder: Path) -> str:
    """Returns Envoy's error or warning for the resources; "" if it accepts them."""
    command = [
        str(need("envoy")),
        "--mode",
        "validate",
        "-l",
        "warn",
        "-c",
        str(_write_config(compiled, profile, folder)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=ENVOY_TIMEOUT, check=False)
    return result.stderr if result.returncode or "warning" in result.stderr else ""


def _write_config(compiled: CompiledResources, profile: GatewayProfile, folder: Path) -> Path:
    path = folder / "envoy.json"
    path.write_text(json_format.MessageToJson(bootstrap(compiled, profile)))
    return path


@contextmanager
def running_envoy(compiled: CompiledResources, profile: GatewayProfile, folder: Path) -> Iterator[None]:
    """Runs an Envoy with these resources. It takes connections when the block begins and has ended after it."""
    command = [
        str(need("envoy")),
        "-c",
        str(_write_config(compiled, profile, folder)),
        "--concurrency",
        "1",
        "-l",
        "error",
    ]
    with (folder / "envoy.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--disable-hot-restart", "--file-flush-interval-msec", "100"], stdout=log, stderr=log
        )
        try:
            _wait(process, profile, folder)
            yield
        finally:
            process.terminate()
            process.wait(ENVOY_TIMEOUT)


def _wait(process: subprocess.Popen[bytes], profile: GatewayProfile, folder: Path) -> None:
    deadline = time.monotonic() + ENVOY_TIMEOUT
    host, _, port = profile.listen[0].rpartition(":")
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"Envoy did not start: {(folder / 'envoy.log').read_text()[-2000:]}")


class GatewayConnection:
    """A connection to a gateway that sends one request after another."""

    def __init__(self, profile: GatewayProfile) -> None:
        self._connection = http.client.HTTPConnection(profile.listen[0], timeout=ENVOY_TIMEOUT)

    def __call__(
        self,
        method: str,
        path: str,
        host: str,
        headers: tuple[tuple[str, str | bytes], ...] = (),
        body: bytes | None = None,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        length = () if body is None else (("content-length", str(len(body))),)
        for name, value in (("host", host), *headers, *length):
            self._connection.putheader(name, value)
        self._connection.endheaders(body)
        response = self._connection.getresponse()
        return response, response.read()

    def close(self) -> None:
        self._connection.close()
