"""The plan of a gateway: everything that is decided from the settings before anything runs."""

from __future__ import annotations

import os
import platform
import resource
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adsum.client.credentials.xds import XdsCredentials
from adsum.client.native.nodes import parse_urls
from adsum.config.gateway import GatewayConfig
from adsum.core import validation
from adsum.dialects.xds.settings import DEFAULT_XDS_PORT
from adsum.envoy.process import file_limits
from adsum.envoy.process.binary import EnvoyBinary, find_envoy
from adsum.gateway.profile import GatewayProfile, split_address
from adsum.settings import OFF

CA_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""The files in which systems keep the CA certificates that they trust: Debian, Fedora, macOS and the BSDs."""

SocketAddress = tuple[str, int]
"""A host and a port."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """The plan of one gateway.

    `registry_nodes`: the xDS addresses of the registry. `xds_credentials`: None means that they speak plain text.
    `monitor`: None turns the monitor off. `max_connections`: the setting. `max_open_files`: how many files an Envoy may
    have open; None is no limit. `process_access`: whether the gateway may act on Envoy's process from outside
    (docs/envoy.md).
    """

    binary: EnvoyBinary
    node: str
    profile: GatewayProfile
    registry_nodes: tuple[SocketAddress, ...]
    monitor: SocketAddress | None
    concurrency: int
    max_connections: int
    drain_timeout: float
    log_level: str
    max_open_files: int | None = None
    process_access: bool = True
    xds_credentials: XdsCredentials | None = None

    @property
    def connection_limit(self) -> int:
        """Client connections that there are enough files for, at most `max_connections`. May be 0 or less."""
        if self.max_open_files is None:
            return self.max_connections
        limit = file_limits.max_connections(self.max_open_files, self.concurrency, len(self.all_addresses))
        return min(self.max_connections, limit)

    @property
    def listen_addresses(self) -> tuple[SocketAddress, ...]:
        """The addresses that accept requests."""
        return tuple(split_address("listen", address) for address in self.profile.listen)

    @property
    def urls(self) -> list[str]:
        """The listen addresses as URLs."""
        scheme = "https" if self.profile.tls_certificate else "http"
        return [f"{scheme}://{address}" for address in self.profile.listen]

    @property
    def all_addresses(self) -> tuple[SocketAddress, ...]:
        """All addresses at which Envoy listens: the listen addresses and the monitor."""
        return (*self.listen_addresses, *([self.monitor] if self.monitor else []))


def make_plan(
    config: GatewayConfig,
    registry_nodes: Sequence[SocketAddress],
    zone: str = "",
    xds_credentials: XdsCredentials | None = None,
) -> GatewayPlan:
    """Returns the plan of the gateway that the settings describe. Raises `EnvoyNotFound` and `Invalid`."""
    profile = config.profile(zone, system_ca_file())
    return GatewayPlan(
        binary=find_envoy(config.envoy),
        node=config.node or default_node_name(profile),
        profile=profile,
        registry_nodes=tuple(registry_nodes),
        monitor=split_address("monitor", config.monitor) if config.monitor != OFF else None,
        concurrency=config.concurrency or available_processors(),
        max_connections=config.max_connections,
        drain_timeout=config.drain_timeout,
        log_level=config.log_level,
        max_open_files=max_open_files(),
        process_access=config.process_access,
        xds_credentials=xds_credentials,
    )


def default_node_name(profile: GatewayProfile) -> str:
    """Returns the host name and the first port, shortened to what a registry accepts (`validation.node_id`)."""
    host = "".join(filter(str.isprintable, platform.node()))[: validation.MAX_ADDRESS_LENGTH]
    return f"{host or 'gateway'}-{split_address('listen', profile.listen[0])[1]}"


def registry_addresses(xds: str, url: str) -> tuple[SocketAddress, ...]:
    """Returns where the registry serves xDS: at `xds` if given, else at the default port of the hosts in `url`."""
    if xds:
        parts = (part.strip().rpartition(":") for part in xds.split(",") if part.strip())
        return tuple((host.strip("[]"), int(port)) for host, _, port in parts)
    return tuple(dict.fromkeys((urlsplit(node).hostname or "", DEFAULT_XDS_PORT) for node in parse_urls(url)))


def connect_address(listening: str) -> SocketAddress:
    """Returns the address at which this host reaches a server that listens at HOST:PORT."""
    host, _, port = listening.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - an address to connect to


def system_ca_file() -> str:
    """Returns the file of the CA certificates that this system trusts; "" if there is none in the usual places."""
    default = ssl.get_default_verify_paths().cafile
    return next((path for path in (default, *CA_FILES) if path and Path(path).is_file()), "")


def max_open_files() -> int | None:
    """Returns how many files a child process may open once it has raised its limit; None is no limit."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard_limit == resource.RLIM_INFINITY else hard_limit


def available_processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
