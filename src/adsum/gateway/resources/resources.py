"""xDS resources, encoded once as bytes and sent to many gateways and gRPC clients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from adsum.gateway.encoding import messages

VERSION_HASH_BYTES: Final = 8


class ResourceKind(StrEnum):
    """The kinds of resources, with their type URLs."""

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
"""The order of pushes: no resource names another one that the client does not have yet. Removals go in reverse."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One encoded resource.

    `version` is the hash of its content. `delta` is a serialized DeltaDiscoveryResponse with this resource alone, and
    `sotw` a serialized DiscoveryResponse; a concatenation of such messages is a response with several resources.
    `revision` is that of the last change in the resource. `problem`: the reason why a client can't use it, if it is
    known in advance. `has_tls`: a cluster with instances that use TLS.
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
        """Returns the resource with another revision and the same content."""
        return replace(self, revision=revision)


def content_version(content: bytes) -> str:
    """Returns the version of a resource with that content."""
    return blake2b(content, digest_size=VERSION_HASH_BYTES).hexdigest()


def encode_resource(
    kind: ResourceKind, name: str, message: Any, revision: int, problem: str = "", *, has_tls: bool = False
) -> Resource:
    """Encodes a message as a resource. Equal messages always have equal bytes."""
    resource = encoded_resource(kind, name, messages.serialize(message), revision)
    return replace(resource, problem=problem, has_tls=has_tls) if problem or has_tls else resource


def encoded_resource(kind: ResourceKind, name: str, content: bytes, revision: int) -> Resource:
    """Returns the resource with that encoded content."""
    version = content_version(content)
    delta = DeltaDiscoveryResponse()
    resource = delta.resources.add(name=name, version=version)
    resource.resource.type_url = kind.value
    resource.resource.value = content
    sotw = DiscoveryResponse()
    sotw.resources.add(type_url=kind.value, value=content)
    return Resource(kind, name, version, messages.serialize(delta), messages.serialize(sotw), revision)
