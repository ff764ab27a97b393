"""Resources: what a gateway or a gRPC client is told, as bytes that are made once and sent to many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from adsum.gateway.encoding import messages

VERSION_HASH_BYTES: Final = 8


class ResourceKind(StrEnum):
    """The kinds of resources, by their type URLs."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    FILTER = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


PUSH_ORDER: Final = (
    ResourceKind.CLUSTER,
    ResourceKind.ASSIGNMENT,
    ResourceKind.SECRET,
    ResourceKind.FILTER,
    ResourceKind.LISTENER,
    ResourceKind.ROUTES,
)
"""In this order nothing is named before it is known; what is gone is removed in the opposite one."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, encoded.

    `version` is the hash of its content. `delta` is a serialized DeltaDiscoveryResponse that holds just this resource,
    `sotw` a DiscoveryResponse: serialized messages can be concatenated, and protobuf reads them as one. `revision` is
    that of the last change that is in it. `problem`: what keeps a client from using it, if that is known beforehand.
    `has_tls`: a cluster some of whose instances speak TLS.
    """

    kind: ResourceKind
    name: str
    version: str
    delta: bytes
    sotw: bytes
    revision: int
    problem: str = ""
    has_tls: bool = False

    def with_revision(self, revision: int) -> Resource:
        """The same, which later changes have not altered."""
        return replace(self, revision=revision)


def content_version(content: bytes) -> str:
    """The version of a resource that is encoded like this."""
    return blake2b(content, digest_size=VERSION_HASH_BYTES).hexdigest()


def encode_resource(
    kind: ResourceKind, name: str, message: Any, revision: int, problem: str = "", *, has_tls: bool = False
) -> Resource:
    """Encode a resource; equal content always has equal bytes."""
    resource = encoded_resource(kind, name, messages.serialize(message), revision)
    return replace(resource, problem=problem, has_tls=has_tls) if problem or has_tls else resource


def encoded_resource(kind: ResourceKind, name: str, content: bytes, revision: int) -> Resource:
    """A resource whose content is encoded already."""
    version = content_version(content)
    delta = DeltaDiscoveryResponse()
    resource = delta.resources.add(name=name, version=version)
    resource.resource.type_url = kind.value
    resource.resource.value = content
    sotw = DiscoveryResponse()
    sotw.resources.add(type_url=kind.value, value=content)
    return Resource(kind, name, version, messages.serialize(delta), messages.serialize(sotw), revision)
