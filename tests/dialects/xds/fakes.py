"""What an audience is told, made up: resources of any name and version, and clients that take what they are told."""

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
    """An assignment with endpoints at these ports."""
    message: Any = ClusterLoadAssignment(cluster_name=name)
    for port in ports:
        endpoint = message.endpoints.add() if not message.endpoints else message.endpoints[0]
        where = endpoint.lb_endpoints.add().endpoint.address.socket_address
        where.address, where.port_value = "127.0.0.1", port
    return encode_resource(EDS, name, message, revision)


def resource(kind: ResourceKind, name: str, content: int, revision: int = 1) -> Resource:
    """One whose content is a number."""
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
    """Resources by kind and name, from numbers."""
    return {
        kind: {name: resource(kind, name, content) for name, content in of.items()} for kind, of in contents.items()
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
                each.instance.port
                for each in service.listings.values()
                if addresses.get(each.instance.address, each.instance.address)[0].isdigit()
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
    """A client of one session: keeps what it is told, as the protocol's clients do."""

    def __init__(self, variant: ModuleType, session: StreamSession) -> None:
        self.variant = variant
        self.session = session
        self.resources: dict[ResourceKind, dict[str, str]] = {}
        """Content by name."""
        self.responses: list[ReceivedResponse] = []
        self.nonces: dict[ResourceKind, str] = {}
        self.names: dict[ResourceKind, list[str]] = {}
        self.now = 0.0

    @property
    def is_delta(self) -> bool:
        return self.variant is delta

    def request(self, kind: ResourceKind, *names: str, nonce: str = "", error: str = "", **more: Any) -> str:
        """One request; the rejection that was heard."""
        if self.is_delta:
            said = DeltaDiscoveryRequest(
                type_url=kind.value, resource_names_subscribe=names, response_nonce=nonce, **more
            )
        else:
            said = DiscoveryRequest(type_url=kind.value, resource_names=names, response_nonce=nonce, **more)
        if error:
            said.error_detail.message = error
        self.names[kind] = sorted({*self.names.get(kind, ()), *names}) if self.is_delta else list(names)
        parse = request.parse_delta if self.is_delta else request.parse_sotw
        asked = parse(said.SerializeToString()).body
        assert asked is not None
        return self.session.receive(asked)

    def receive(self) -> ReceivedResponse | None:
        """The next response, taken in but not answered."""
        message = self.session.next_response(self.now)
        if message is None:
            return None
        said = decode(message, delta=self.is_delta)
        self.nonces[said.kind] = said.nonce
        has = self.resources.setdefault(said.kind, {})
        if not self.is_delta and said.kind in (CDS, LDS):
            has.clear()
        has |= {name: content.hex() for name, content in said.resources.items()}
        for name in said.removed:
            has.pop(name, None)
        self.responses.append(said)
        return said

    def ack(self, kind: ResourceKind, error: str = "") -> str:
        """Answer the last response of that kind."""
        names = () if self.is_delta else self.names.get(kind, ())
        return self.request(kind, *names, nonce=self.nonces[kind], error=error)

    def settle(self) -> list[ReceivedResponse]:
        """Take in and acknowledge everything that there is to say."""
        taken = []
        while (said := self.receive()) is not None:
            self.ack(said.kind)
            taken.append(said)
        return taken


def decode(message: bytes, *, delta: bool) -> ReceivedResponse:
    """A response as it went over the wire."""
    if delta:
        said = DeltaDiscoveryResponse.FromString(message)
        found = {each.name: each.resource.value for each in said.resources}
        return ReceivedResponse(ResourceKind(said.type_url), said.nonce, found, list(said.removed_resources))
    whole = DiscoveryResponse.FromString(message)
    return ReceivedResponse(
        ResourceKind(whole.type_url), whole.nonce, {_name(each): each.value for each in whole.resources}, []
    )


def content(found: Resource) -> str:
    """What a client keeps of a resource."""
    said: bytes = DeltaDiscoveryResponse.FromString(found.delta).resources[0].resource.value
    return said.hex()


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
"""How many answers took at most so many milliseconds, but longer than what is there before; inf: longer than all."""


def metrics_message(node: str, **figures: float | Times) -> bytes:
    """Figures of a gateway, by Envoy's names."""
    message = MESSAGE_TYPES["StreamMetricsMessage"]()
    message.identifier.node.id = node
    for name, figure in figures.items():
        metric = message.envoy_metrics.add(name=name).metric.add()
        if isinstance(figure, Mapping):
            _fill(metric.histogram, figure)
        else:
            metric.counter.value = figure
            metric.gauge.value = figure
    encoded: bytes = message.SerializeToString()
    return encoded


def _fill(histogram: Any, times: Times) -> None:
    for bound, count in times.items():
        histogram.sample_count += count
        if bound < inf:
            histogram.bucket.add(upper_bound=bound, cumulative_count=histogram.sample_count)
