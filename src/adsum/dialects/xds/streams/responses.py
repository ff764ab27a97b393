"""Responses as bytes: a small head, and behind it what was encoded once for all. Protobuf reads both as one message."""

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

_HEADS: Final = 1_024
"""How many heads are remembered: all streams that are told one thing at one publication share theirs."""
_IDLE: Final = frozenset({UNHEALTHY, DRAINING})
"""The health of endpoints that get no calls."""
_KNOWN: Final = messages.serialize(assignments.assignment("", (), {}))
"""What an assignment of a known service has beside its name when it has no endpoints."""


def delta_response(
    kind: ResourceKind, nonce: str, revision: int, resources: Sequence[Resource], removed: Sequence[str]
) -> bytes:
    """A response that says what changed."""
    return b"".join([_delta_head(kind, nonce, revision, tuple(removed)), *(each.delta for each in resources)])


def sotw_response(kind: ResourceKind, nonce: str, revision: int, resources: Sequence[Resource]) -> bytes:
    """A response that says what is."""
    return b"".join([_sotw_head(kind, nonce, revision), *(each.sotw for each in resources)])


@lru_cache(_HEADS)
def _delta_head(kind: ResourceKind, nonce: str, revision: int, gone: tuple[str, ...]) -> bytes:
    head: bytes = DeltaDiscoveryResponse(
        type_url=kind.value, nonce=nonce, system_version_info=str(revision), removed_resources=gone
    ).SerializeToString()
    return head


@lru_cache(_HEADS)
def _sotw_head(kind: ResourceKind, nonce: str, revision: int) -> bytes:
    head: bytes = DiscoveryResponse(type_url=kind.value, nonce=nonce, version_info=str(revision)).SerializeToString()
    return head


@lru_cache(_HEADS)
def empty_assignment(name: str) -> Resource:
    """An assignment without endpoints, for one that is gone: clients ignore that an assignment was removed."""
    return encode_resource(ResourceKind.ASSIGNMENT, name, ClusterLoadAssignment(cluster_name=name), 0)


@lru_cache(_HEADS)
def has_no_callable_endpoint(assignment: bytes) -> bool:
    """Whether nobody in an assignment, encoded for delta, takes calls: it is empty, or they are yet to start."""
    said = DeltaDiscoveryResponse.FromString(assignment).resources[0].resource
    localities = ClusterLoadAssignment.FromString(said.value).endpoints
    return all(each.health_status in _IDLE for locality in localities for each in locality.lb_endpoints)


def empty_versions(name: str) -> tuple[str, str]:
    """The versions of an assignment of that name without endpoints: of a service that is known, and of one that is not.

    After a restart every client is asked about all that it has, so this must be quick.
    """
    content = messages.serialize(ClusterLoadAssignment(cluster_name=name))
    return content_version(content + _KNOWN), content_version(content)
