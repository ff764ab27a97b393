"""What anybody who reaches the monitoring address may ask of a gateway: its metrics and how it is, nothing else.

Envoy's own admin interface can also change and end it, and shows whatever it was told; it stays on a socket of ours.
"""

from __future__ import annotations

from typing import Any, Final

from adsum.envoy.admin import MONITOR_LISTENER
from adsum.envoy.registry_health.registry_contact import LOST_AFTER

ADMIN_CLUSTER: Final = "adsum_admin"
"""The cluster that leads to the admin socket."""
REGISTRY_LOST_KEY: Final = "adsum.registry_lost"
"""The key of Envoy's runtime that is `ALWAYS_PERCENT` while no registry is heard."""
ALWAYS_PERCENT: Final = 100
"""Per cent of the answers at /readyz that say so."""
READY_BODY: Final = "ready\n"
REGISTRY_LOST_BODY: Final = (
    f"ready, but no registry has been heard for {LOST_AFTER:g} s: it goes on with what it knows\n"
)
METRICS_PATH: Final = "/stats/prometheus?usedonly"
"""Without the figures of what has never been used."""

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters"
_GET: Final = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
_PLAIN: Final = {"name": ":path", "string_match": {"exact": "/metrics"}}


def monitor_listener(address: tuple[str, int]) -> dict[str, Any]:
    """Answers /metrics, /healthz (it runs) and /readyz (it takes requests; 503 once it is told to end).

    While no registry is heard, /readyz says so in its body. The status stays 200: every gateway of a registry that is
    away would be taken out of its load balancer at once, although all of them serve.
    """
    host, port = address
    manager = {
        "@type": f"{_HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": MONITOR_LISTENER,
        "codec_type": "AUTO",
        "route_config": {"name": MONITOR_LISTENER, "virtual_hosts": [_ANY_HOST]},
        "http_filters": [
            {"name": "envoy.filters.http.health_check", "typed_config": _READY},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_HTTP}.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
        "normalize_path": True,
        "generate_request_id": False,
        "stream_idle_timeout": "30s",
        "common_http_protocol_options": {"idle_timeout": "120s"},
    }
    return {
        "name": MONITOR_LISTENER,
        "stat_prefix": MONITOR_LISTENER,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
        # Whoever floods the gateway must not keep its operator from seeing that.
        "bypass_overload_manager": True,
        "ignore_global_conn_limit": True,
    }


def admin_cluster(socket_path: str) -> dict[str, Any]:
    """The way to the admin socket."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket_path}}}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


_READY: Final = {
    "@type": f"{_HTTP}.http.health_check.v3.HealthCheck",
    "pass_through_mode": True,  # It answers by itself once it is told to end; else the routes below do.
    "headers": [{"name": ":path", "string_match": {"exact": "/readyz"}}],
}
_ANY_HOST: Final = {
    "name": MONITOR_LISTENER,
    "domains": ["*"],
    "routes": [
        {
            # Envoy would read a query as its own.
            "match": {"path": "/metrics", "headers": [_GET, _PLAIN]},
            "route": {"cluster": ADMIN_CLUSTER, "prefix_rewrite": METRICS_PATH, "timeout": "30s"},
        },
        {
            "match": {"path": "/metrics", "headers": [_GET]},
            "redirect": {"path_redirect": "/metrics", "strip_query": True},
        },
        {
            "match": {"path": "/healthz", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
        },
        {
            "match": {
                "path": "/readyz",
                "headers": [_GET],
                "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": REGISTRY_LOST_KEY},
            },
            "direct_response": {"status": 200, "body": {"inline_string": REGISTRY_LOST_BODY}},
        },
        {
            "match": {"path": "/readyz", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": READY_BODY}},
        },
        {
            "match": {"prefix": "/"},
            "direct_response": {
                "status": 404,
                "body": {"inline_string": "there are /metrics, /healthz and /readyz here\n"},
            },
        },
    ],
}
