"""Selects the stats that a gateway's Envoy keeps.

Envoy would keep about 130 stats per service and more per route. Most are never read, and each costs memory and time in
every scrape. A gateway keeps request counts, results and latencies by service and route, counts of retries, ejections
and exceeded limits, and Envoy's own state. The registry receives the same stats. Counts per instance go to the
registry as load reports (LRS), which need no stats; Envoy cannot do both.
"""

from __future__ import annotations

import re
from typing import Any, Final

LATENCY_BUCKETS_MS: Final = (0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000)
"""Upper bounds of the latency histograms' buckets, in milliseconds."""

REQUEST_STATS: Final = (
    r"upstream_rq_(?:\dxx|total|time|timeout|retry|retry_success|retry_overflow|retry_limit_exceeded)"
)
SERVICE_STATS: Final = (
    r"^cluster\.[^.]+\.(?:"
    + REQUEST_STATS
    + r"|upstream_rq_(?:active|pending_active|pending_overflow|per_try_timeout|rx_reset|maintenance_mode)"
    r"|upstream_cx_(?:active|total|connect_fail|connect_timeout|overflow)"
    r"|membership_(?:healthy|degraded|total)"
    r"|outlier_detection\.ejections_(?:active|enforced_total|overflow)"
    r"|circuit_breakers\.default\.(?:cx|rq|rq_pending|rq_retry)_open"
    r"|lb_healthy_panic"
    r")$"
)
ROUTE_STATS: Final = r"^vhost\..+\.route\..+\." + REQUEST_STATS + "$"
LISTENER_STATS: Final = (
    r"^http\..+\.(?:downstream_rq_(?:total|active|\dxx|time|timeout|idle_timeout|max_duration_reached)"
    r"|downstream_cx_(?:total|active|protocol_error|drain_close|idle_timeout)|downstream_cx_upgrades_active"
    r"|no_route|no_cluster|rs_too_large|local_rate_limit\.(?:enabled|rate_limited))$"
)
# A pattern instead of prefixes: Envoy compares prefixes with the name of every stat that it touches (2 % of a request).
SERVER_STATS: Final = (
    r"^(?:(?:server|control_plane|listener_manager|cluster_manager|overload)\.|main_thread\.watchdog_).*$"
)
"""Stats about Envoy itself."""
# By address, without those by thread.
ADDRESS_STATS: Final = (
    r"^listener\.(?:[^.]+|[0-9a-f._\[\]]+)\.(?:downstream_cx_(?:total|active|overflow|overload_reject)|downstream_global_cx_overflow"
    r"|ssl\.(?:connection_error|handshake|fail_verify_error)|ssl\.certificate\..*)$"
)
REGISTRY_CLUSTER: Final = "adsum_registry"
"""The cluster of the registry nodes. No service can have this name, so no default route leads there."""
REGISTRY_BYTES_RECEIVED: Final = f"cluster.{REGISTRY_CLUSTER}.upstream_cx_rx_bytes_total"
"""Bytes received from the registry, including replies to pings. They show whether the registry is still there."""
REGISTRY_TLS_STATS: Final = (
    rf"^cluster\.{REGISTRY_CLUSTER}\.ssl\.(?:connection_error|handshake|fail_verify_\w+|certificate\..*)$"
)
"""Stats about TLS to the registry, and when the certificates for it expire."""
RATE_LIMIT_STATS: Final = r"^.*http_local_rate_limit\.(?:enabled|enforced|rate_limited)$"
SECRET_UPDATE_STATS: Final = (
    r"^(?:cluster\..+\.(?:client|server)_ssl_socket_factory|listener\..+)\.ssl_context_update_by_sds$"
)


def stats_config() -> dict[str, Any]:
    """Returns the stats configuration for Envoy's bootstrap."""
    patterns = (
        SERVER_STATS,
        SERVICE_STATS,
        ROUTE_STATS,
        LISTENER_STATS,
        ADDRESS_STATS,
        RATE_LIMIT_STATS,
        SECRET_UPDATE_STATS,
        REGISTRY_TLS_STATS,
        f"^{re.escape(REGISTRY_BYTES_RECEIVED)}$",
    )
    return {
        "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": pattern}} for pattern in patterns]}},
        "histogram_bucket_settings": [{"match": {"suffix": "_time"}, "buckets": list(LATENCY_BUCKETS_MS)}],
    }
