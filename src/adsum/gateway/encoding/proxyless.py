"""The resources of a service for gRPC clients without a proxy, which call `xds:///orders` (gRFC A27).

A client requests them by name in turn: listener, routes, cluster, assignment. All have the service's name.
"""

from __future__ import annotations

from typing import Any, Final

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import DEFAULT
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteMatch, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.listeners import http_filters
from adsum.gateway.intent.upstreams import HASH_POLICIES, LbPolicy, OutlierSettings, Upstream

FAILURE_PERCENTAGE: Final = 85
"""Per cent of an instance's calls in an interval whose failure ejects it."""
MIN_FAILURE_VOLUME: Final = 10
"""Calls to an instance in an interval below which it is not ejected."""


def listener(service: str) -> Any:
    """Returns the listener of a service. Unknown services have one, too, so that calls fail at once, not after 15 s."""
    manager = HttpConnectionManager(stat_prefix=service)
    manager.rds.route_config_name = service
    manager.rds.config_source.CopyFrom(messages.ads_source())
    manager.http_filters.append(
        HttpFilter(name=http_filters.ROUTER_FILTER, typed_config=messages.any_message(Router()))
    )
    message = Listener(name=service)
    message.api_listener.api_listener.CopyFrom(messages.any_message(manager))
    return message


def routes(service: str) -> Any:
    """Returns the route configuration that sends every call to the service."""
    route = Route(name=service, match=RouteMatch(prefix=""))
    route.route.cluster = service
    host = VirtualHost(name=service, domains=["*"], routes=[route])
    return RouteConfiguration(name=service, virtual_hosts=[host])


def cluster(upstream: Upstream, policy: LbPolicy) -> Any:
    """Returns the service's cluster. Python's gRPC refuses every policy but round robin and ring hash."""
    message = Cluster(
        name=upstream.service,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=messages.ads_source()),
        lb_policy=Cluster.RING_HASH if policy in HASH_POLICIES else Cluster.ROUND_ROBIN,
    )
    if policy in HASH_POLICIES:
        message.ring_hash_lb_config.minimum_ring_size.value = upstream.hash_size
        message.ring_hash_lb_config.hash_function = Cluster.RingHashLbConfig.XX_HASH
    thresholds = CircuitBreakers.Thresholds(priority=DEFAULT)
    thresholds.max_requests.value = upstream.limits.requests
    message.circuit_breakers.thresholds.append(thresholds)
    _set_outlier_detection(message.outlier_detection, upstream.outliers)
    return message


def _set_outlier_detection(detection: Any, outliers: OutlierSettings) -> None:
    """Sets ejection by the share of failures, since gRPC ignores failures in a row."""
    detection.interval.CopyFrom(messages.duration(outliers.interval))
    detection.base_ejection_time.CopyFrom(messages.duration(outliers.base))
    detection.max_ejection_percent.value = round(outliers.max_share * 100)
    detection.enforcing_success_rate.value = 0
    detection.failure_percentage_threshold.value = FAILURE_PERCENTAGE
    detection.enforcing_failure_percentage.value = 100 if outliers.consecutive else 0
    detection.failure_percentage_minimum_hosts.value = 2
    detection.failure_percentage_request_volume.value = MIN_FAILURE_VOLUME
