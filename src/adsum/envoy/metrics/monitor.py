"""The monitor listener of a gateway: the only way to reach its metrics and its health from outside.

Envoy's admin interface can also reconfigure and stop Envoy and shows its whole configuration, so it stays on a private
socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from adsum.envoy.admin import MONITOR_LISTENER
from adsum.envoy.registry_health.registry_contact import LOST_AFTER, ContactProblem

ADMIN_CLUSTER: Final = "adsum_admin"
"""The cluster that leads to the admin socket."""
PROBLEM_KEYS: Final[Mapping[ContactProblem, str]] = MappingProxyType(
    {problem: f"adsum.registry_{problem.value}" for problem in ContactProblem}
)
"""Problem with the registry → the runtime key that is `ALWAYS_PERCENT` while there is this problem."""
ALWAYS_PERCENT: Final = 100
"""Per cent of the answers at /readyz that report the problem."""
READY_BODY: Final = "ready\n"
REGISTRY_LOST_BODY: Final = (
    f"ready, but no contact with the registry for {LOST_AFTER:g} s: it serves the last known configuration\n"
)
PROBLEM_BODIES: Final[Mapping[ContactProblem, str]] = MappingProxyType(
    {
        ContactProblem.LOST: REGISTRY_LOST_BODY,
        ContactProblem.REFUSED: (
            "ready, but the registry rejects this gateway, whose token may have been revoked: it serves the last known "
            "configuration; the log has the reason, and `adsum join` with a new line mends it\n"
        ),
        ContactProblem.EXPIRED: (
            "ready, but this gateway's certificate for the registry has expired: it serves the last known "
            "configuration; `adsum join --renew` mends it\n"
        ),
    }
)
"""Problem with the registry → the body of /readyz."""
METRICS_PATH: Final = "/stats/prometheus?usedonly"
"""The path of the metrics on the admin interface, without stats that were never used."""

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters"
_GET: Final = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
_WITHOUT_QUERY: Final = {"name": ":path", "string_match": {"exact": "/metrics"}}


def monitor_listener(address: tuple[str, int]) -> dict[str, Any]:
    """Returns the listener for /metrics, /healthz (Envoy runs) and /readyz (it accepts requests; 503 while it drains).

    While no registry is connected, the body of /readyz says why. The status stays 200: otherwise a load balancer would
    remove every gateway at once when the registry is away, although all of them serve.
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
        # A flood of connections must not hide the metrics from the operator.
        "bypass_overload_manager": True,
        "ignore_global_conn_limit": True,
    }


def admin_cluster(socket_path: str) -> dict[str, Any]:
    """Returns the cluster of the admin socket."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket_path}}}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


_READY: Final = {
    "@type": f"{_HTTP}.http.health_check.v3.HealthCheck",
    "pass_through_mode": True,  # The filter answers once Envoy drains; until then the routes below do.
    "headers": [{"name": ":path", "string_match": {"exact": "/readyz"}}],
}
_ANY_HOST: Final = {
    "name": MONITOR_LISTENER,
    "domains": ["*"],
    "routes": [
        {
            # Envoy would interpret a query.
            "match": {"path": "/metrics", "headers": [_GET, _WITHOUT_QUERY]},
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
        *(
            {
                "match": {
                    "path": "/readyz",
                    "headers": [_GET],
                    "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": key},
                },
                "direct_response": {"status": 200, "body": {"inline_string": PROBLEM_BODIES[problem]}},
            }
            for problem, key in PROBLEM_KEYS.items()
        ),
        {
            "match": {"path": "/readyz", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": READY_BODY}},
        },
        {
            "match": {"prefix": "/"},
            "direct_response": {
                "status": 404,
                "body": {"inline_string": "not found: the paths are /metrics, /healthz and /readyz\n"},
            },
        },
    ],
}
