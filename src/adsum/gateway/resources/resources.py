"""Resources: what a gateway or a gRPC client is told, as bytes that are made once and sent to many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from adsum.gateway.encoding import messages

VERSION_BYTES: Final = 8


class Kind(StrEnum):
    """The kinds of resources, by their type URLs."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    FILTER = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


ORDER: Final = (Kind.CLUSTER, Kind.ASSIGNMENT, Kind.SECRET, Kind.FILTER, Kind.LISTENER, Kind.ROUTES)
"""In this order nothing is named before it is known; what is gone is removed in the opposite one."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, encoded.

    `version` is the hash of its content. `delta` is a serialized DeltaDiscoveryResponse that holds just this resource,
    `sotw` a DiscoveryResponse: serialized messages can be concatenated, and protobuf reads them as one. `revision` is
    that of the last change that is in it. `trouble`: what keeps a client from using it, if that is known beforehand.
    `encrypted`: a cluster some of whose instances speak TLS.
    """

    kind: Kind
    name: str
    version: str
    delta: bytes
    sotw: bytes
    revision: int
    trouble: str = ""
    encrypted: bool = False

    def at(self, revision: int) -> Resource:
        """The same, which later changes have not altered."""
        return replace(self, revision=revision)


def version_of(content: bytes) -> str:
    """The version of a resource that is encoded like this."""
    return blake2b(content, digest_size=VERSION_BYTES).hexdigest()


def pack(kind: Kind, name: str, message: Any, revision: int, trouble: str = "", *, encrypted: bool = False) -> Resource:
    """Encode a resource; equal content always has equal bytes."""
    resource = packed(kind, name, messages.serialized(message), revision)
    return replace(resource, trouble=trouble, encrypted=encrypted) if trouble or encrypted else resource


def packed(kind: Kind, name: str, content: bytes, revision: int) -> Resource:
    """A resource whose content is encoded already."""
    version = version_of(content)
    delta = DeltaDiscoveryResponse()
    resource = delta.resources.add(name=name, version=version)
    resource.resource.type_url = kind.value
    resource.resource.value = content
    sotw = DiscoveryResponse()
    sotw.resources.add(type_url=kind.value, value=content)
    return Resource(kind, name, version, messages.serialized(delta), messages.serialized(sotw), revision)
