"""Builds Envoy's cluster of the registry's nodes, over plain text or TLS. Pure."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from adsum.core.addresses import is_ip_address
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.envoy.metrics.stats import REGISTRY_CLUSTER
from adsum.envoy.plan import GatewayPlan, SocketAddress

CONNECT_TIMEOUT: Final = 1.0
"""Seconds that a registry node has to accept a connection; then Envoy tries the next one."""
NODE_EJECTION_TIME: Final = 10.0
"""Seconds for which a failed registry node is not tried while others answer."""
KEEPALIVE: Final = (DEFAULT_HEARTBEAT, DEFAULT_HEARTBEAT)
"""Seconds between two pings to the registry, and seconds that each may take; then Envoy tries another node. So a
gateway notices silence as soon as other consumers do (`heartbeats.stale_after`)."""
CONNECTION_LIFETIME: Final = 10.0
"""Seconds after which a connection over TLS takes no new streams; those that it has continue. A stream that the
registry has ended because of the gateway's certificate comes back with the newest certificate soon."""

IDENTITY_FILE: Final = "registry-identity.pem"
"""The file in an Envoy's folder with the certificate and key that it presents to the registry."""
AUTHORITY_FILE: Final = "registry-authority.pem"
"""The file in an Envoy's folder with the authorities of the registry."""
IDENTITY_SECRET_FILE: Final = "registry-identity.json"
AUTHORITY_SECRET_FILE: Final = "registry-authority.json"
"""The files that name these two to Envoy, which reads them as SDS sources."""
IDENTITY_SECRET: Final = "registry_identity"
"""The name of the gateway's certificate for the registry, in SDS and in Envoy's stats."""
AUTHORITY_SECRET: Final = "registry_authority"

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_NODE: Final = "node"
"""The key in the metadata of a node under which its TLS settings are found."""


def registry_cluster(plan: GatewayPlan, folder: Path, responsive_nodes: Collection[SocketAddress]) -> dict[str, Any]:
    """Returns the cluster of registry nodes. Envoy tries them in turn until one answers, responsive ones first.

    With `xds_credentials`, `folder` must hold the files that `identity_secret` and `authority_secret` name.
    """
    nodes, has_tls = plan.registry_nodes, plan.xds_credentials is not None
    preferred = [node for node in nodes if node in responsive_nodes] or nodes
    others = [node for node in nodes if node not in preferred]
    endpoints = [
        {"priority": priority, "lb_endpoints": [_endpoint(*node, has_tls=has_tls) for node in group]}
        for priority, group in enumerate((preferred, others))
        if group
    ]
    has_names = not all(map(is_ip_address, (host for host, _ in nodes)))
    return {
        "name": REGISTRY_CLUSTER,
        # Envoy resolves names again every 5 seconds.
        "type": "STRICT_DNS" if has_names else "STATIC",
        **({"dns_lookup_family": "ALL"} if has_names else {}),
        "connect_timeout": _seconds(CONNECT_TIMEOUT),
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": REGISTRY_CLUSTER, "endpoints": endpoints},
        "typed_extension_protocol_options": {_HTTP_OPTIONS: _http_options(has_tls=has_tls)},
        # A failed node is not tried for a while. If all have failed, all are tried.
        "outlier_detection": {
            "consecutive_gateway_failure": 1,
            "enforcing_consecutive_gateway_failure": 100,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "base_ejection_time": _seconds(NODE_EJECTION_TIME),
            "max_ejection_time": _seconds(NODE_EJECTION_TIME),
            "max_ejection_percent": 100,
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        **_tls(plan, folder),
    }


def identity_secret(folder: Path) -> dict[str, Any]:
    """Returns the SDS secret that names the certificate and the key in `folder`."""
    file = {"filename": str(folder / IDENTITY_FILE)}
    pair = {"certificate_chain": file, "private_key": file, "watched_directory": {"path": str(folder)}}
    return _secret(IDENTITY_SECRET, {"tls_certificate": pair})


def authority_secret(folder: Path) -> dict[str, Any]:
    """Returns the SDS secret that names the authorities in `folder`."""
    context = {
        "trusted_ca": {"filename": str(folder / AUTHORITY_FILE)},
        "watched_directory": {"path": str(folder)},
    }
    return _secret(AUTHORITY_SECRET, {"validation_context": context})


def _secret(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **content}]}


def _tls(plan: GatewayPlan, folder: Path) -> dict[str, Any]:
    """Returns the TLS settings of the cluster, one for each host: its certificate must have the name or address."""
    credentials = plan.xds_credentials
    if credentials is None:
        return {}
    hosts = dict.fromkeys(host for host, _ in plan.registry_nodes)
    sockets = {host: _tls_socket(host, folder, has_identity=credentials.certificate is not None) for host in hosts}
    return {
        "transport_socket_matches": [
            {"name": host, "match": {_NODE: host}, "transport_socket": socket} for host, socket in sockets.items()
        ],
        # Every node matches. If one did not, it would have to be the first one; nothing goes out in plain text.
        "transport_socket": next(iter(sockets.values())),
    }


def _tls_socket(host: str, folder: Path, *, has_identity: bool) -> dict[str, Any]:
    is_address = is_ip_address(host)
    # Envoy compares texts, and has an address as it is usually written.
    exact = str(ip_address(host)) if is_address else host
    name = {"san_type": "IP_ADDRESS" if is_address else "DNS", "matcher": {"exact": exact}}
    common: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [name]},
            "validation_context_sds_secret_config": _source(AUTHORITY_SECRET, folder / AUTHORITY_SECRET_FILE),
        },
    }
    if has_identity:
        common["tls_certificate_sds_secret_configs"] = [_source(IDENTITY_SECRET, folder / IDENTITY_SECRET_FILE)]
    context = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": common}
    if not is_address:  # RFC 6066 allows only names.
        context["sni"] = host
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _source(name: str, path: Path) -> dict[str, Any]:
    return {
        "name": name,
        "sds_config": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"},
    }


def _http_options(*, has_tls: bool) -> dict[str, Any]:
    keepalive = {"interval": _seconds(KEEPALIVE[0]), "timeout": _seconds(KEEPALIVE[1])}
    options: dict[str, Any] = {
        "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
        "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}},
    }
    if has_tls:
        options["common_http_protocol_options"] = {"max_connection_duration": _seconds(CONNECTION_LIFETIME)}
    return options


def _endpoint(host: str, port: int, *, has_tls: bool) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    if has_tls:
        endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": {_NODE: host}}}
    return endpoint


def _seconds(length: float) -> str:
    return f"{length:g}s"
