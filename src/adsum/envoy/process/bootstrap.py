"""What Envoy is told when it starts: who it is, where its registry is, and what it may use. Pure."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from adsum.core.addresses import is_ip_address
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.envoy.certificates import certificate
from adsum.envoy.metrics import monitor
from adsum.envoy.metrics.stats import REGISTRY_CLUSTER, stats_config
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.registry_health.last_good_config import StaticResources
from adsum.gateway.patterns.regexes import MAX_RE2_INSTRUCTIONS
from adsum.gateway.profile import GatewayProfile

NODE_CLUSTER: Final = "adsum-gateway"
"""What all gateways are together, in Envoy's words."""
SECRET_NAME: Final = "gateway"
"""What the registry calls a gateway's own certificate."""
SECRETS_FILE: Final = "secrets.json"
"""The file that says where a gateway's certificate is."""
PROCESS_CWD: Final = Path("/proc/self/cwd") if sys.platform == "linux" else None
"""The folder that a process works in, to itself; None where a system has no such name."""
CONNECT_TIMEOUT: Final = 1.0
"""Seconds that a registry node has to accept a connection; then the next one is tried."""
RECONNECT_BACKOFF: Final = (0.1, 1.0)
"""Seconds between two attempts to reach the registry, growing; Envoy adds chance."""
NODE_EJECTION_TIME: Final = 10.0
"""Seconds for which a registry node that failed is not tried while others answer."""
KEEPALIVE: Final = (DEFAULT_HEARTBEAT, DEFAULT_HEARTBEAT)
"""Seconds between two pings of the registry, and within which each is answered; else another node is tried. Silence is
noticed as soon as by other consumers (`heartbeats.staleness`)."""
STATS_FLUSH_INTERVAL: Final = 5.0
"""Seconds between two times that Envoy sums up its figures."""
METRICS_BATCH_SIZE: Final = 1_000
"""Figures that the registry is told in one message, so that it does something else in between."""

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"


def bootstrap(
    plan: GatewayPlan, admin_socket: Path, responsive_nodes: Collection[SocketAddress] = ()
) -> dict[str, Any]:
    """Envoy's bootstrap, to be written as JSON. `admin`: the socket that only we are to reach, in a folder of its own.

    That folder is also where Envoy works, and where it finds its certificate. `answering`: the registry nodes that
    answered of late; it tries the others only when none of these does any more.
    """
    return {
        **_common(plan, admin_socket),
        "static_resources": {
            "clusters": [_registry(plan.registry_nodes, responsive_nodes), *_monitor_clusters(plan, admin_socket)],
            "listeners": _monitor_listeners(plan),
        },
        "dynamic_resources": {
            "ads_config": _stream("DELTA_GRPC"),
            "cds_config": _from_stream(),
            "lds_config": _from_stream(),
        },
        "cluster_manager": {"load_stats_config": _stream("GRPC")},
        "stats_sinks": [_figures()],
    }


def static_bootstrap(plan: GatewayPlan, admin_socket: Path, resources: StaticResources) -> dict[str, Any]:
    """The same for an Envoy that nobody tells anything: it serves what the one before was told last.

    Its certificate is to be where `certificate_secret` says, in the file `SECRETS_FILE` of the admin socket's folder.
    """
    return {
        **_common(plan, admin_socket),
        "static_resources": {
            "clusters": [*resources.clusters, *_monitor_clusters(plan, admin_socket)],
            "listeners": [
                *(_secured(each, admin_socket.parent / SECRETS_FILE) for each in resources.listeners),
                *_monitor_listeners(plan),
            ],
        },
    }


def certificate_secret(folder: Path) -> dict[str, Any]:
    """What a registry says of a gateway's certificate, for one that has none to ask."""
    file = {"filename": str(folder / certificate.PAIR_FILE)}
    pair = {"certificate_chain": file, "private_key": file, "watched_directory": {"path": str(folder)}}
    return {
        "resources": [
            {"@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.Secret", "name": SECRET_NAME, "tls_certificate": pair}
        ]
    }


def _secured(value: Any, secrets: Path) -> Any:
    """With its certificate from a file wherever it was from the registry."""
    if isinstance(value, list):
        return [_secured(each, secrets) for each in value]
    if not isinstance(value, dict):
        return value
    source = {"path_config_source": {"path": str(secrets)}, "resource_api_version": "V3"}
    found = {key: _secured(each, secrets) for key, each in value.items()}
    if "tls_certificate_sds_secret_configs" in found:
        found["tls_certificate_sds_secret_configs"] = [{"name": SECRET_NAME, "sds_config": source}]
    return found


def _common(plan: GatewayPlan, admin: Path) -> dict[str, Any]:
    """What holds wherever the routes and services come from."""
    node: dict[str, Any] = {
        "id": plan.node,
        "cluster": NODE_CLUSTER,
        "metadata": _said(plan.profile, admin.parent).metadata(),
    }
    if plan.profile.zone:
        node["locality"] = {"zone": plan.profile.zone}
    return {
        "node": node,
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}, "ignore_global_conn_limit": True},
        "stats_config": stats_config(),
        "stats_flush_interval": _seconds(STATS_FLUSH_INTERVAL),
        "overload_manager": {"resource_monitors": [_connection_bound(plan.connection_limit)]},
        "layered_runtime": layered_runtime(),
    }


def layered_runtime() -> dict[str, Any]:
    """Envoy's runtime: what differs from its defaults, and what may be changed over its admin socket."""
    # Envoy's default, 100, is less than some expressions have that routes accept; one that it refuses holds back all.
    programs = {"re2.max_program_size.error_level": MAX_RE2_INSTRUCTIONS}
    return {"layers": [{"name": "adsum", "static_layer": programs}, {"name": "admin", "admin_layer": {}}]}


def _said(shape: GatewayProfile, folder: Path) -> GatewayProfile:
    """Its shape to the registry. Gateways of one shape share what they are told, so all of them name the file alike."""
    if not shape.tls_certificate:
        return shape
    pair = str((PROCESS_CWD or folder) / certificate.PAIR_FILE)
    return replace(shape, tls_certificate=pair, tls_key=pair)


def _connection_bound(most: int) -> dict[str, Any]:
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": most,
        },
    }


def _monitor_clusters(plan: GatewayPlan, admin: Path) -> list[dict[str, Any]]:
    return [monitor.admin_cluster(str(admin))] if plan.monitor else []


def _monitor_listeners(plan: GatewayPlan) -> list[dict[str, Any]]:
    return [monitor.monitor_listener(plan.monitor)] if plan.monitor else []


def _registry(places: Sequence[SocketAddress], answering: Collection[SocketAddress]) -> dict[str, Any]:
    """Every node of the registry will do: they are tried in turn until one answers, first those that did of late."""
    protocol = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {
                "connection_keepalive": {"interval": _seconds(KEEPALIVE[0]), "timeout": _seconds(KEEPALIVE[1])}
            }
        },
    }
    first = [each for each in places if each in answering] or places
    others = [each for each in places if each not in first]
    endpoints = [
        {"priority": priority, "lb_endpoints": [_endpoint(*each) for each in nodes]}
        for priority, nodes in enumerate((first, others))
        if nodes
    ]
    named = not all(map(is_ip_address, (host for host, _ in places)))
    return {
        "name": REGISTRY_CLUSTER,
        # Names are looked up again every 5 seconds.
        "type": "STRICT_DNS" if named else "STATIC",
        **({"dns_lookup_family": "ALL"} if named else {}),
        "connect_timeout": _seconds(CONNECT_TIMEOUT),
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": REGISTRY_CLUSTER, "endpoints": endpoints},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        # One that fails is not tried for a while; all of them away is no reason to stop trying any.
        "outlier_detection": {
            "consecutive_gateway_failure": 1,
            "enforcing_consecutive_gateway_failure": 100,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "base_ejection_time": _seconds(NODE_EJECTION_TIME),
            "max_ejection_time": _seconds(NODE_EJECTION_TIME),
            "max_ejection_percent": 100,
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
    }


def _endpoint(host: str, port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}


def _stream(kind: str) -> dict[str, Any]:
    first, most = map(_seconds, RECONNECT_BACKOFF)
    retries = {"retry_back_off": {"base_interval": first, "max_interval": most}}
    return {
        "api_type": kind,
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": REGISTRY_CLUSTER, "retry_policy": retries}}],
    }


def _figures() -> dict[str, Any]:
    """The registry is told the figures whenever they are summed up; that costs no request anything."""
    return {
        "name": "envoy.stat_sinks.metrics_service",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": REGISTRY_CLUSTER}},
            "histogram_emit_mode": "HISTOGRAM",
            "batch_size": METRICS_BATCH_SIZE,
        },
    }


def _from_stream() -> dict[str, Any]:
    # Waited for as long as it takes: one that takes over from another must not begin with nothing to serve.
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _seconds(length: float) -> str:
    return f"{length:g}s"
