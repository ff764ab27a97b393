"""Builds Envoy's bootstrap configuration: its identity, its registry, its admin socket and its limits. Pure."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from adsum.envoy.certificates import certificate
from adsum.envoy.metrics import monitor
from adsum.envoy.metrics.stats import REGISTRY_CLUSTER, stats_config
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.process.registry_cluster import registry_cluster
from adsum.envoy.registry_health.last_good_config import StaticResources
from adsum.gateway.patterns.regexes import MAX_RE2_INSTRUCTIONS
from adsum.gateway.profile import GatewayProfile

NODE_CLUSTER: Final = "adsum-gateway"
"""The cluster that every gateway belongs to, in the node that Envoy sends to the registry."""
SECRET_NAME: Final = "gateway"
"""The name of a gateway's own certificate in xDS."""
SECRETS_FILE: Final = "secrets.json"
"""The file that names the certificate to an Envoy that follows no registry. Envoy reads it as an SDS source."""
PROCESS_CWD: Final = Path("/proc/self/cwd") if sys.platform == "linux" else None
"""A path that means the working directory of whichever process opens it; None where the system has none."""
RECONNECT_BACKOFF: Final = (0.1, 1.0)
"""The shortest and the longest delay between two attempts to reach the registry, in seconds. Envoy adds jitter."""
STATS_FLUSH_INTERVAL: Final = 5.0
"""Seconds between two flushes of Envoy's stats."""
METRICS_BATCH_SIZE: Final = 1_000
"""Metrics in one message to the registry. Small messages let the registry do other work in between."""

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"


def bootstrap(
    plan: GatewayPlan, admin_socket: Path, responsive_nodes: Collection[SocketAddress] = ()
) -> dict[str, Any]:
    """Returns Envoy's bootstrap for a gateway that follows a registry, to be written as JSON.

    `admin_socket` is the path of the admin socket, in a folder that only this gateway can reach. That folder is Envoy's
    working directory and holds its certificate. `responsive_nodes` are the registry nodes that answered just now; Envoy
    tries the others only when none of these works.
    """
    return {
        **_common(plan, admin_socket),
        "static_resources": {
            "clusters": [
                registry_cluster(plan, admin_socket.parent, responsive_nodes),
                *_monitor_clusters(plan, admin_socket),
            ],
            "listeners": _monitor_listeners(plan),
        },
        "dynamic_resources": {
            "ads_config": _grpc_api("DELTA_GRPC"),
            "cds_config": _ads_source(),
            "lds_config": _ads_source(),
        },
        "cluster_manager": {"load_stats_config": _grpc_api("GRPC")},
        "stats_sinks": [_metrics_sink()],
    }


def static_bootstrap(plan: GatewayPlan, admin_socket: Path, resources: StaticResources) -> dict[str, Any]:
    """Returns the bootstrap for a gateway without a registry: it serves the last good configuration, `resources`.

    The file `SECRETS_FILE` in the admin socket's folder must hold `certificate_secret`.
    """
    return {
        **_common(plan, admin_socket),
        "static_resources": {
            "clusters": [*resources.clusters, *_monitor_clusters(plan, admin_socket)],
            "listeners": [
                *(_secured(listener, admin_socket.parent / SECRETS_FILE) for listener in resources.listeners),
                *_monitor_listeners(plan),
            ],
        },
    }


def certificate_secret(folder: Path) -> dict[str, Any]:
    """Returns the SDS secret that names the certificate in `folder`, as a file for an Envoy without a registry."""
    file = {"filename": str(folder / certificate.PAIR_FILE)}
    pair = {"certificate_chain": file, "private_key": file, "watched_directory": {"path": str(folder)}}
    return {
        "resources": [
            {"@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.Secret", "name": SECRET_NAME, "tls_certificate": pair}
        ]
    }


def _secured(value: Any, secrets: Path) -> Any:
    """Returns `value` with its certificate taken from the file `secrets` instead of the registry."""
    if isinstance(value, list):
        return [_secured(item, secrets) for item in value]
    if not isinstance(value, dict):
        return value
    source = {"path_config_source": {"path": str(secrets)}, "resource_api_version": "V3"}
    secured = {key: _secured(item, secrets) for key, item in value.items()}
    if "tls_certificate_sds_secret_configs" in secured:
        secured["tls_certificate_sds_secret_configs"] = [{"name": SECRET_NAME, "sds_config": source}]
    return secured


def _common(plan: GatewayPlan, admin: Path) -> dict[str, Any]:
    """Returns the settings that do not depend on where routes and services come from."""
    node: dict[str, Any] = {
        "id": plan.node,
        "cluster": NODE_CLUSTER,
        "metadata": _reported_profile(plan.profile, admin.parent).metadata(),
    }
    if plan.profile.zone:
        node["locality"] = {"zone": plan.profile.zone}
    return {
        "node": node,
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}, "ignore_global_conn_limit": True},
        "stats_config": stats_config(),
        "stats_flush_interval": _seconds(STATS_FLUSH_INTERVAL),
        "overload_manager": {"resource_monitors": [_connection_limit(plan.connection_limit)]},
        "layered_runtime": layered_runtime(),
    }


def layered_runtime() -> dict[str, Any]:
    """Returns Envoy's runtime: values that differ from its defaults, and a layer for changes over its admin socket."""
    # Routes accept regexes beyond Envoy's default of 100, and one refused regex would block all routes.
    programs = {"re2.max_program_size.error_level": MAX_RE2_INSTRUCTIONS}
    return {"layers": [{"name": "adsum", "static_layer": programs}, {"name": "admin", "admin_layer": {}}]}


def _reported_profile(profile: GatewayProfile, folder: Path) -> GatewayProfile:
    """Returns the profile as the registry receives it.

    The certificate has the same path in every gateway's profile, because gateways of equal profile share their
    resources.
    """
    if not profile.tls_certificate:
        return profile
    path = str((PROCESS_CWD or folder) / certificate.PAIR_FILE)
    return replace(profile, tls_certificate=path, tls_key=path)


def _connection_limit(limit: int) -> dict[str, Any]:
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": limit,
        },
    }


def _monitor_clusters(plan: GatewayPlan, admin: Path) -> list[dict[str, Any]]:
    return [monitor.admin_cluster(str(admin))] if plan.monitor else []


def _monitor_listeners(plan: GatewayPlan) -> list[dict[str, Any]]:
    return [monitor.monitor_listener(plan.monitor)] if plan.monitor else []


def _grpc_api(kind: str) -> dict[str, Any]:
    first, most = map(_seconds, RECONNECT_BACKOFF)
    retries = {"retry_back_off": {"base_interval": first, "max_interval": most}}
    return {
        "api_type": kind,
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": REGISTRY_CLUSTER, "retry_policy": retries}}],
    }


def _metrics_sink() -> dict[str, Any]:
    """Sends the stats to the registry at every flush. That adds no work to requests."""
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


def _ads_source() -> dict[str, Any]:
    # No timeout: an Envoy that takes over from another must not start with an empty configuration.
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _seconds(length: float) -> str:
    return f"{length:g}s"
