"""Fake resources of any name and version, and a fake xDS client that applies responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from math import inf
from types import ModuleType
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.xds.streams import delta, request
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.telemetry.gateway_metrics import MESSAGE_TYPES
from adsum.gateway.encoding import messages
from adsum.gateway.intent.intent import Intent
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import CompiledResources
from adsum.gateway.resources.resources import Resource, ResourceKind, encode_resource

CDS, EDS, LDS, RDS = ResourceKind.CLUSTER, ResourceKind.ASSIGNMENT, ResourceKind.LISTENER, ResourceKind.ROUTES


def assignment(name: str, ports: Iterable[int], revision: int = 1) -> Resource:
    """Returns an assignment with endpoints at these ports."""
    message: Any = ClusterLoadAssignment(cluster_name=name)
    for port in ports:
        endpoint = message.endpoints.add() if not message.endpoints else message.endpoints[0]
        address = endpoint.lb_endpoints.add().endpoint.address.socket_address
        address.address, address.port_value = "127.0.0.1", port
    return encode_resource(EDS, name, message, revision)


def resource(kind: ResourceKind, name: str, content: int, revision: int = 1) -> Resource:
    """Returns a resource whose content is a number."""
    if kind is EDS:
        return assignment(name, range(1, content + 1), revision)
    message: Any = {
        CDS: lambda: Cluster(name=name, alt_stat_name=str(content)),
        LDS: lambda: Listener(name=name, stat_prefix=str(content)),
        RDS: lambda: RouteConfiguration(name=name, internal_only_headers=[str(content)]),
        ResourceKind.SECRET: lambda: Secret(name=name),
        ResourceKind.FILTER: lambda: messages.extension(name, RouteConfiguration(name=str(content))),
    }[kind]()
    return encode_resource(kind, name, message, revision)


Contents = Mapping[ResourceKind, Mapping[str, int]]


def resources(contents: Contents) -> dict[ResourceKind, dict[str, Resource]]:
    """Returns resources by kind and name, from the numbers of their contents."""
    return {
        kind: {name: resource(kind, name, content) for name, content in table.items()}
        for kind, table in contents.items()
    }


class FakeCompiled(CompiledResources):
    """Compiled resources that are small: endpoints by port, and one cluster for each service."""

    def __init__(self, found: dict[ResourceKind, dict[str, Resource]] | None = None) -> None:
        self.found = found or {}
        self.unrouted: Set[str] = frozenset()

    def is_compiled(self, profile: GatewayProfile) -> bool:
        return True

    def gateway_resources(self, profile: GatewayProfile) -> Mapping[ResourceKind, Mapping[str, Resource]]:
        return self.found

    def changed_names(self, before: Mapping[str, Resource], after: Mapping[str, Resource]) -> Set[str] | None:
        return None

    def grpc_resource(self, kind: ResourceKind, name: str) -> Resource | None:
        return self.found.get(kind, {}).get(name)

    def advance(self, snapshot: Snapshot, intent: Intent, addresses: Mapping[str, str]) -> FakeCompiled:
        found: dict[ResourceKind, dict[str, Resource]] = {kind: {} for kind in (CDS, EDS, LDS, RDS)}
        for name, service in snapshot.services.items():
            ports = sorted(
                listing.instance.port
                for listing in service.listings.values()
                if addresses.get(listing.instance.address, listing.instance.address)[0].isdigit()
            )
            found[CDS][name] = resource(CDS, name, 1)
            found[EDS][name] = assignment(name, ports)
        found[LDS]["main"] = resource(LDS, "main", 1)
        found[RDS]["main"] = resource(RDS, "main", len(snapshot.services))
        return FakeCompiled(found)


@dataclass
class ReceivedResponse:
    """A response, in one form for both variants."""

    kind: ResourceKind
    nonce: str
    resources: dict[str, bytes]
    removed: list[str]


class FakeXdsClient:
    """A client of one session. It keeps the resources that it gets, as a real client does."""

    def __init__(self, variant: ModuleType, session: StreamSession) -> None:
        self.variant = variant
        self.session = session
        self.resources: dict[ResourceKind, dict[str, str]] = {}
        """The contents of the client's resources, by name."""
        self.responses: list[ReceivedResponse] = []
        self.nonces: dict[ResourceKind, str] = {}
        self.names: dict[ResourceKind, list[str]] = {}
        self.now = 0.0

    @property
    def is_delta(self) -> bool:
        return self.variant is delta

    def request(self, kind: ResourceKind, *names: str, nonce: str = "", error: str = "", **more: Any) -> str:
        """Sends a request, and returns the rejection that the session read from it."""
        if self.is_delta:
            message = DeltaDiscoveryRequest(
                type_url=kind.value, resource_names_subscribe=names, response_nonce=nonce, **more
            )
        else:
            message = DiscoveryRequest(type_url=kind.value, resource_names=names, response_nonce=nonce, **more)
        if error:
            message.error_detail.message = error
        self.names[kind] = sorted({*self.names.get(kind, ()), *names}) if self.is_delta else list(names)
        parse = request.parse_delta if self.is_delta else request.parse_sotw
        body = parse(message.SerializeToString()).body
        assert body is not None
        return self.session.receive(body)

    def receive(self) -> ReceivedResponse | None:
        """Applies the next response without answering it; None if there is none."""
        message = self.session.next_response(self.now)
        if message is None:
            return None
        response = decode(message, delta=self.is_delta)
        self.nonces[response.kind] = response.nonce
        table = self.resources.setdefault(response.kind, {})
        if not self.is_delta and response.kind in (CDS, LDS):
            table.clear()
        table |= {name: content.hex() for name, content in response.resources.items()}
        for name in response.removed:
            table.pop(name, None)
        self.responses.append(response)
        return response

    def ack(self, kind: ResourceKind, error: str = "") -> str:
        """Answers the last response of that kind."""
        names = () if self.is_delta else self.names.get(kind, ())
        return self.request(kind, *names, nonce=self.nonces[kind], error=error)

    def settle(self) -> list[ReceivedResponse]:
        """Applies and acknowledges all responses that there are."""
        applied = []
        while (response := self.receive()) is not None:
            self.ack(response.kind)
            applied.append(response)
        return applied


def decode(message: bytes, *, delta: bool) -> ReceivedResponse:
    """Decodes a response."""
    if delta:
        response = DeltaDiscoveryResponse.FromString(message)
        contents = {named.name: named.resource.value for named in response.resources}
        kind = ResourceKind(response.type_url)
        return ReceivedResponse(kind, response.nonce, contents, list(response.removed_resources))
    response = DiscoveryResponse.FromString(message)
    contents = {_name(packed): packed.value for packed in response.resources}
    return ReceivedResponse(ResourceKind(response.type_url), response.nonce, contents, [])


def content(resource: Resource) -> str:
    """Returns the content of a resource, as the fake client keeps it."""
    message: bytes = DeltaDiscoveryResponse.FromString(resource.delta).resources[0].resource.value
    return message.hex()


_MESSAGES = {
    CDS: Cluster,
    EDS: ClusterLoadAssignment,
    LDS: Listener,
    RDS: RouteConfiguration,
    ResourceKind.SECRET: Secret,
    ResourceKind.FILTER: TypedExtensionConfig,
}


def _name(any_message: Any) -> str:
    kind = ResourceKind(any_message.type_url)
    message = _MESSAGES[kind].FromString(any_message.value)
    return str(message.cluster_name if kind is EDS else message.name)


Times = Mapping[float, int]
"""The number of answers by the upper bound of their bucket in milliseconds; inf: above the last bound."""


def metrics_message(node: str, **values: float | Times) -> bytes:
    """Encodes metrics of a gateway, by Envoy's names."""
    message = MESSAGE_TYPES["StreamMetricsMessage"]()
    message.identifier.node.id = node
    for name, value in values.items():
        metric = message.envoy_metrics.add(name=name).metric.add()
        if isinstance(value, Mapping):
            _fill(metric.histogram, value)
        else:
            metric.counter.value = value
            metric.gauge.value = value
    encoded: bytes = message.SerializeToString()
    return encoded


def _fill(histogram: Any, times: Times) -> None:
    for bound, count in times.items():
        histogram.sample_count += count
        if bound < inf:
            histogram.bucket.add(upper_bound=bound, cumulative_count=histogram.sample_count)
