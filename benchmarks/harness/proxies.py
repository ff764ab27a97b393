"""The proxies that are measured: the gateway, a static Envoy, nginx and HAProxy.

Each has one worker thread, keeps connections alive on both sides, and writes no access log by default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.json_format import MessageToDict

from adsum.envoy.metrics.stats import stats_config
from adsum.gateway.encoding.clusters import clusters
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, HttpVersion
from adsum.gateway.encoding.clusters.tls import TlsPeers
from adsum.gateway.encoding.listeners import http_filters, listeners
from adsum.gateway.encoding.routes import route_configuration
from adsum.gateway.intent.upstreams import LbPolicy, Upstream
from adsum.gateway.profile import GatewayProfile
from benchmarks.harness import programs, target_server
from benchmarks.harness.processes import START_TIMEOUT, MeasuredProcess, free_port, is_listening
from benchmarks.harness.servers import BenchmarkNode

TARGET_PROGRAM: Final = str(target_server.__file__)
SERVICE: Final = "orders"
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"


class ServiceTarget(MeasuredProcess):
    """An instance of the service."""

    def __init__(self, folder: Path, body: str = "ok") -> None:
        self.port = free_port()
        super().__init__(f"target-{self.port}", [sys.executable, TARGET_PROGRAM, str(self.port), body], folder)
        self.wait_until(partial(is_listening, self.port))

    def register(self, node: BenchmarkNode, id: str) -> None:
        """Registers it without a lease."""
        registration = {"address": "127.0.0.1", "port": self.port, "ttl": None}
        node.put(f"/api/v1/services/{SERVICE}/instances/{id}", registration)


class ProxyProcess(MeasuredProcess):
    """A proxy; `url` is the service's path on it."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, port: int, start_timeout: float = START_TIMEOUT
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/{SERVICE}/"
        super().__init__(name, command, folder)
        self.wait_until(partial(is_listening, port), start_timeout)


class GatewayProxy(ProxyProcess):
    """`adsum gateway`. Raises `ProgramMissing` without Envoy."""

    def __init__(self, folder: Path, node: BenchmarkNode, *, access_log: str = "off") -> None:
        programs.need("envoy")
        port = free_port()
        command = [sys.executable, "-m", "adsum", "gateway", "--listen", f"127.0.0.1:{port}", "--xds", node.xds]
        command += ["--monitor", "off", "--access-log", access_log, "--concurrency", "1"]
        super().__init__("gateway" if access_log == "off" else f"gateway-{access_log}", command, folder, port)

    def cpu(self) -> float:
        """Returns the seconds of CPU of its Envoy and of the process that supervises it."""
        own = super().cpu()
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        supervisor = self.pid
        for child in children:
            self.pid = int(child)
            own += super().cpu()
        self.pid = supervisor
        return own


def static_envoy(folder: Path, ports: Sequence[int]) -> ProxyProcess:
    """Starts an Envoy with the minimal configuration: one route, one cluster, no control plane."""
    port = free_port()
    return _envoy("static Envoy", folder, port, bare_config(port, ports))


def featured_envoy(folder: Path, ports: Sequence[int]) -> ProxyProcess:
    """Starts an Envoy with all features of the gateway: its difference from the gateway is the cost of xDS."""
    port = free_port()
    return _envoy("static Envoy with its features", folder, port, featured_config(port, ports))


def _envoy(name: str, folder: Path, port: int, config: dict[str, Any]) -> ProxyProcess:
    file = folder / f"envoy-{port}.json"
    file.write_text(json.dumps(config))
    program = str(programs.need("envoy").path)
    command = [program, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return ProxyProcess(name, command, folder, port)


def featured_config(port: int, ports: Sequence[int], service: str = SERVICE) -> dict[str, Any]:
    """Returns the configuration of an Envoy that processes requests as the gateway does."""
    profile = GatewayProfile((f"127.0.0.1:{port}",), access_log="off")
    listener = _json(listeners.listener(profile.listen[0], profile))
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    routes = route_configuration.route_configuration(
        (), {service: ALL_HTTP1}, {}, route_configuration.EncodedRoutes(), default_routes=True, behind_proxy=False
    )
    for http_filter in manager["http_filters"]:
        if "config_discovery" in http_filter:
            del http_filter["config_discovery"]
            http_filter["typed_config"] = _json(http_filters.rate_limit_buckets(()).typed_config)
    manager["route_config"] = _json(RouteConfiguration.FromString(routes))
    upstream = Upstream(service)
    no_tls = TlsPeers(has_host_names=False, ips=())
    cluster = _json(clusters.cluster(service, upstream, LbPolicy.LEAST_REQUEST, HttpVersion.HTTP1, no_tls, ""))
    del cluster["eds_cluster_config"]
    cluster |= {"type": "STATIC", "load_assignment": _assignment(ports, service)}
    return {"stats_config": stats_config(), "static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _json(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _assignment(ports: Sequence[int], service: str = SERVICE) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    return {"cluster_name": service, "endpoints": [{"lb_endpoints": endpoints}]}


def bare_config(port: int, ports: Sequence[int]) -> dict[str, Any]:
    """Returns the configuration of an Envoy with one route and one cluster, and defaults otherwise."""
    route = {"match": {"prefix": f"/{SERVICE}/"}, "route": {"cluster": SERVICE, "prefix_rewrite": "/"}}
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    cluster = {
        "name": SERVICE,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": _assignment(ports),
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def nginx(folder: Path, ports: Sequence[int]) -> ProxyProcess:
    """Starts nginx, configured by its documentation for keep-alive to upstreams. Raises `ProgramMissing`."""
    program = str(programs.need("nginx").path)
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{target};" for target in ports)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; keepalive_requests 10000000;\n"
        f"upstream {SERVICE} {{ {servers} keepalive 128; keepalive_requests 10000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; location /{SERVICE}/ {{ proxy_pass http://{SERVICE}/;\n"
        f'proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}\n'
    )
    return ProxyProcess("nginx", [program, "-c", str(file), "-p", str(folder)], folder, port)


def haproxy(folder: Path, ports: Sequence[int]) -> ProxyProcess:
    """Starts HAProxy. Raises `ProgramMissing`."""
    program = str(programs.need("haproxy").path)
    port = free_port()
    servers = "".join(f"  server s{target} 127.0.0.1:{target}\n" for target in ports)
    file = folder / "haproxy.cfg"
    file.write_text(
        "global\n  nbthread 1\n  maxconn 4096\n"
        "defaults\n  mode http\n  http-reuse always\n"
        "  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n"
        f"frontend in\n  bind 127.0.0.1:{port}\n  http-request replace-path /{SERVICE}(/.*) \\1\n"
        f"  default_backend {SERVICE}\nbackend {SERVICE}\n  balance leastconn\n{servers}"
    )
    return ProxyProcess("haproxy", [program, "-db", "-f", str(file)], folder, port)
