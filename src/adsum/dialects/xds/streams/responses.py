"""Encodes responses: a small head, followed by resources that were encoded once for all streams.

Protobuf reads the concatenation as one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from envoy.config.core.v3.health_check_pb2 import DRAINING, UNHEALTHY
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters import assignments
from adsum.gateway.resources.resources import Resource, ResourceKind, content_version, encode_resource

_CACHE_SIZE: Final = 1_024
"""Entries of each cache: all streams that get the same response at one publication share its head."""
_UNCALLABLE: Final = frozenset({UNHEALTHY, DRAINING})
"""The health of endpoints that get no calls."""
_KNOWN_SERVICE: Final = messages.serialize(assignments.assignment("", (), {}))
"""The encoded fields, beside its name, of a known service's assignment without endpoints."""


def delta_response(
    kind: ResourceKind, nonce: str, revision: int, resources: Sequence[Resource], removed: Sequence[str]
) -> bytes:
    """Encodes a delta response."""
    head = _delta_head(kind, nonce, revision, tuple(removed))
    return b"".join([head, *(resource.delta for resource in resources)])


def sotw_response(kind: ResourceKind, nonce: str, revision: int, resources: Sequence[Resource]) -> bytes:
    """Encodes a state-of-the-world response."""
    return b"".join([_sotw_head(kind, nonce, revision), *(resource.sotw for resource in resources)])


@lru_cache(_CACHE_SIZE)
def _delta_head(kind: ResourceKind, nonce: str, revision: int, removed: tuple[str, ...]) -> bytes:
    head: bytes = DeltaDiscoveryResponse(
        type_url=kind.value, nonce=nonce, system_version_info=str(revision), removed_resources=removed
    ).SerializeToString()
    return head


@lru_cache(_CACHE_SIZE)
def _sotw_head(kind: ResourceKind, nonce: str, revision: int) -> bytes:
    head: bytes = DiscoveryResponse(type_url=kind.value, nonce=nonce, version_info=str(revision)).SerializeToString()
    return head


@lru_cache(_CACHE_SIZE)
def empty_assignment(name: str) -> Resource:
    """Returns an assignment without endpoints, to send for one that is gone: clients ignore removals of assignments."""
    return encode_resource(ResourceKind.ASSIGNMENT, name, ClusterLoadAssignment(cluster_name=name), 0)


@lru_cache(_CACHE_SIZE)
def has_no_callable_endpoint(assignment: bytes) -> bool:
    """Returns whether an assignment, as encoded for delta, has no endpoint that gets calls."""
    resource = DeltaDiscoveryResponse.FromString(assignment).resources[0].resource
    localities = ClusterLoadAssignment.FromString(resource.value).endpoints
    return all(endpoint.health_status in _UNCALLABLE for locality in localities for endpoint in locality.lb_endpoints)


def empty_versions(name: str) -> tuple[str, str]:
    """Returns the versions of an assignment without endpoints: that of a known service, and that of an unknown one.

    This is fast, since it is called for every assignment of every client after a restart.
    """
    content = messages.serialize(ClusterLoadAssignment(cluster_name=name))
    return content_version(content + _KNOWN_SERVICE), content_version(content)
