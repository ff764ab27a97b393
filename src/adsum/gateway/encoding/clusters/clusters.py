"""Clusters: how gateways treat a service, or some of its instances. Every setting is explicit.

The instances come from assignments, and their health from the registry. A status takes effect within milliseconds,
while Envoy's own active checks would keep sending traffic to instances that have left.
"""

from __future__ import annotations

from typing import Any, Final

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster, UpstreamConnectionOptions
from envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from envoy.config.core.v3.protocol_pb2 import KeepaliveSettings
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters import tls
from adsum.gateway.encoding.clusters.http_versions import HttpVersion
from adsum.gateway.encoding.clusters.tls import TlsPeers
from adsum.gateway.intent.upstreams import LbPolicy, OutlierSettings, Upstream, UpstreamLimits

HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT = 30.0, 10.0
"""Seconds between pings on HTTP/2 connections with streams, and until a connection without an answer is closed."""
KEEPALIVE_PROBES, KEEPALIVE_IDLE_TIME, KEEPALIVE_INTERVAL = 3, 30, 10
"""TCP keepalive: the number of probes, and seconds. It ends connections to peers that vanished silently."""

_POLICIES: Final = {
    LbPolicy.ROUND_ROBIN: Cluster.ROUND_ROBIN,
    LbPolicy.LEAST_REQUEST: Cluster.LEAST_REQUEST,
    LbPolicy.RANDOM: Cluster.RANDOM,
    LbPolicy.RING_HASH: Cluster.RING_HASH,
    LbPolicy.MAGLEV: Cluster.MAGLEV,
}
_PRIMES: Final = (1_031, 2_053, 4_099, 8_209, 16_411, 32_771, 65_537, 131_101, 262_147, 524_309, 1_048_583)
"""Sizes of Maglev's table, which must be prime. The first one that is not below `hash_size` is used."""


def cluster(name: str, upstream: Upstream, policy: LbPolicy, version: HttpVersion, peers: TlsPeers, roots: str) -> Any:
    """Returns the cluster of that name, for instances that speak that version of HTTP.

    `peers`: the instances with TLS. `roots`: the file of certificate authorities that the gateway's system trusts.
    """
    http2 = version is HttpVersion.HTTP2
    message = Cluster(
        name=name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=messages.ads_source()),
        connect_timeout=messages.duration(upstream.connect_timeout),
        circuit_breakers=_breakers(upstream.limits),
        outlier_detection=_outliers(upstream.outliers),
        ignore_health_on_host_removal=True,
        upstream_connection_options=UpstreamConnectionOptions(),
    )
    _set_owner(message, upstream.service, tls.verification_problem(upstream.tls, peers, roots))
    keepalive = message.upstream_connection_options.tcp_keepalive
    keepalive.keepalive_probes.value = KEEPALIVE_PROBES
    keepalive.keepalive_time.value = KEEPALIVE_IDLE_TIME
    keepalive.keepalive_interval.value = KEEPALIVE_INTERVAL
    # Envoy does not report which limit was reached, so the response lists all of them.
    message.metadata.filter_metadata[messages.METADATA_NAMESPACE].update({"limits": _limits_text(upstream.limits)})
    _set_load_balancing(message, upstream, policy)
    options = _protocol(upstream, http2=http2)
    message.typed_extension_protocol_options[options.DESCRIPTOR.full_name].CopyFrom(messages.any_message(options))
    tls.add_tls(message, upstream.tls, peers, http2=http2, roots=roots)
    return message


def substitute_cluster(name: str, service: str, cause: str) -> Any:
    """Returns a cluster of that name without instances, for a gateway that can't have the service's own cluster.

    `cause` is the reason, which callers receive.
    """
    message = Cluster(name=name, type=Cluster.STATIC)
    message.load_assignment.cluster_name = name
    _set_owner(message, service, cause)
    return message


def _set_owner(message: Any, service: str, cause: str) -> None:
    """Sets the cluster's service and, for responses to callers, the cause why its instances can't be reached."""
    if "." in message.name:
        # A dot would end the cluster's name in the names of its metrics.
        message.alt_stat_name = message.name.replace(".", "_")
    owner = message.metadata.filter_metadata[messages.METADATA_NAMESPACE]
    owner.update({"service": service})
    if cause:
        owner.update({"cause": cause, "clause": f"; {cause}"})


def _set_load_balancing(message: Any, upstream: Upstream, policy: LbPolicy) -> None:
    message.lb_policy = _POLICIES[policy]
    common = message.common_lb_config
    # Envoy's default of 50 % would send requests to draining instances.
    common.healthy_panic_threshold.value = upstream.panic_threshold * 100.0
    # Envoy's default of merging updates for one second would delay every change of health.
    common.update_merge_window.CopyFrom(messages.duration(0.0))
    if policy is LbPolicy.RING_HASH:
        message.ring_hash_lb_config.minimum_ring_size.value = upstream.hash_size
    elif policy is LbPolicy.MAGLEV:
        message.maglev_lb_config.table_size.value = next(prime for prime in _PRIMES if prime >= upstream.hash_size)
    elif policy is LbPolicy.LEAST_REQUEST:
        message.least_request_lb_config.choice_count.value = 2
        _set_slow_start(message.least_request_lb_config, upstream.slow_start)
    elif policy is LbPolicy.ROUND_ROBIN:
        _set_slow_start(message.round_robin_lb_config, upstream.slow_start)


def _set_slow_start(policy: Any, slow_start: float) -> None:
    if slow_start:
        policy.slow_start_config.slow_start_window.CopyFrom(messages.duration(slow_start))


def _breakers(limits: UpstreamLimits) -> Any:
    thresholds = CircuitBreakers.Thresholds(
        max_connections=UInt32Value(value=limits.connections),
        max_pending_requests=UInt32Value(value=limits.pending),
        max_requests=UInt32Value(value=limits.requests),
        max_retries=UInt32Value(value=limits.retries),
    )
    thresholds.retry_budget.budget_percent.value = limits.retry_share * 100.0
    thresholds.retry_budget.min_retry_concurrency.value = limits.retries
    return CircuitBreakers(thresholds=[thresholds])


def _limits_text(limits: UpstreamLimits) -> str:
    """Returns the limits as callers read them when one is reached."""
    return f"{limits.connections} connections, {limits.pending} waiting and {limits.requests} running requests"


def _outliers(outliers: OutlierSettings) -> Any:
    on = 100 if outliers.consecutive else 0
    count = UInt32Value(value=outliers.consecutive or 1)
    return OutlierDetection(
        consecutive_5xx=count,
        enforcing_consecutive_5xx=UInt32Value(value=0),
        consecutive_gateway_failure=count,
        enforcing_consecutive_gateway_failure=UInt32Value(value=on),
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=count,
        enforcing_consecutive_local_origin_failure=UInt32Value(value=on),
        enforcing_success_rate=UInt32Value(value=0),
        enforcing_local_origin_success_rate=UInt32Value(value=0),
        enforcing_failure_percentage=UInt32Value(value=0),
        interval=messages.duration(outliers.interval),
        base_ejection_time=messages.duration(outliers.base),
        max_ejection_percent=UInt32Value(value=round(outliers.max_share * 100)),
        always_eject_one_host=BoolValue(value=False),
    )


def _protocol(upstream: Upstream, *, http2: bool) -> Any:
    options = HttpProtocolOptions()
    options.common_http_protocol_options.idle_timeout.CopyFrom(messages.duration(upstream.keep_alive))
    explicit = options.explicit_http_config
    if http2:
        explicit.http2_protocol_options.connection_keepalive.CopyFrom(
            KeepaliveSettings(
                interval=messages.duration(HTTP2_PING_INTERVAL), timeout=messages.duration(HTTP2_PING_TIMEOUT)
            )
        )
    else:
        explicit.http_protocol_options.SetInParent()
    return options
