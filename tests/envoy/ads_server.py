"""A fake registry as Envoy sees it: it serves one listener and one service over xDS (ADS)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from cryptography import x509
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - registers the type for ParseDict
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,  # noqa: F401 - registers the type for ParseDict
)
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import json_format

from adsum.core.addresses import format_host_port
from adsum.gateway.profile import GatewayProfile, split_address
from adsum.ports import ServerCertificates
from adsum.servers.grpc.credentials import peer_certificate, server_credentials

TYPES: dict[str, Any] = {
    "envoy.config.cluster.v3.Cluster": cluster_pb2.Cluster,
    "envoy.config.endpoint.v3.ClusterLoadAssignment": endpoint_pb2.ClusterLoadAssignment,
    "envoy.config.listener.v3.Listener": listener_pb2.Listener,
    "envoy.config.route.v3.RouteConfiguration": route_pb2.RouteConfiguration,
}
FILTERS = "type.googleapis.com/envoy.extensions.filters"
ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
SERVICE = "orders"


class AdsServer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Serves at `address` until closed; it can be closed and opened again."""

    def __init__(
        self, port: int, upstream: int, certificates: ServerCertificates | None = None, host: str = "127.0.0.1"
    ) -> None:
        """With `certificates` it speaks TLS and requires client certificates."""
        self.port = port
        self.address = format_host_port(host, port)
        self._upstream = upstream
        self.profiles: list[GatewayProfile] = []
        """The profiles that gateways reported, in the order in which they connected."""
        self.silent = False
        """True if it answers, but sends gateways no configuration."""
        self.client_serials: list[int] = []
        """The serial numbers of the client certificates of all streams of Envoys, in order."""
        self.streams: dict[int, Any] = {}
        """The open streams of Envoys."""
        self._certificates = certificates
        self._streams_so_far = 0
        self.refusal_code = grpc.StatusCode.INVALID_ARGUMENT
        self.refusal = ""
        """The reason with which it ends every stream of an Envoy; "" if it does not."""
        self.open()

    def open(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(16))
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self._server)
        if self._certificates is None:
            assert self._server.add_insecure_port(self.address) == self.port
        else:
            credentials = server_credentials(self._certificates)
            assert self._server.add_secure_port(self.address, credentials) == self.port
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait(10)

    def refuse(self, code: grpc.StatusCode, reason: str) -> None:
        """Ends all streams of Envoys, and every later one with this error."""
        self.refusal_code, self.refusal = code, reason
        for context in list(self.streams.values()):
            context.cancel()

    def DeltaAggregatedResources(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        profile: GatewayProfile | None = None
        sent: set[tuple[str, str]] = set()
        for request in requests:
            if request.node.id and request.node.user_agent_name != "envoy":
                yield discovery_pb2.DeltaDiscoveryResponse(type_url=request.type_url, nonce="nothing")
            elif request.node.id and self.refusal:
                self._note_certificate(context)
                context.abort(self.refusal_code, self.refusal)
            elif request.node.id:
                profile = GatewayProfile.from_metadata(json_format.MessageToDict(request.node.metadata))
                self.profiles.append(profile)
                self._note_certificate(context)
                stream = self._streams_so_far = self._streams_so_far + 1
                self.streams[stream] = context
                context.add_callback(lambda stream=stream: self.streams.pop(stream, None))
            kind = request.type_url.removeprefix("type.googleapis.com/")
            if self.silent or profile is None or kind not in TYPES or request.response_nonce:
                continue
            names = set(request.resource_names_subscribe)
            resources = [body for body in self._resources(kind, profile) if not names - {"*"} or _name(body) in names]
            response = discovery_pb2.DeltaDiscoveryResponse(type_url=request.type_url, nonce=f"{kind}-{len(sent)}")
            for body in resources:
                sent.add((kind, _name(body)))
                resource = response.resources.add(name=_name(body), version="1")
                resource.resource.Pack(json_format.ParseDict(body, TYPES[kind]()))
            yield response

    def _note_certificate(self, context: Any) -> None:
        certificate = peer_certificate(context.auth_context())
        if certificate:
            self.client_serials.append(x509.load_der_x509_certificate(certificate).serial_number)

    def _resources(self, kind: str, profile: GatewayProfile) -> list[dict[str, Any]]:
        if kind.endswith("Cluster"):
            return [
                {
                    "name": SERVICE,
                    "type": "EDS",
                    "eds_cluster_config": {"eds_config": ADS},
                    "connect_timeout": "1s",
                }
            ]
        if kind.endswith("Assignment"):
            address = {"socket_address": {"address": "127.0.0.1", "port_value": self._upstream}}
            return [{"cluster_name": SERVICE, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}]
        if kind.endswith("RouteConfiguration"):
            route = {"match": {"prefix": "/"}, "stat_prefix": "all", "route": {"cluster": SERVICE, "timeout": "30s"}}
            return [{"name": "routes", "virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]}]
        return [_listener(address) for address in profile.listen]


def _listener(address: str) -> dict[str, Any]:
    ip, port = split_address("listen", address)
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {"route_config_name": "routes", "config_source": ADS},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": address,
        "address": {"socket_address": {"address": ip, "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _name(resource: dict[str, Any]) -> str:
    return str(resource.get("name") or resource["cluster_name"])
