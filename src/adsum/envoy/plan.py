"""What a gateway is to be: settled before anything runs."""

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

from adsum.client.native.nodes import parse_urls
from adsum.config.addresses import DEFAULT_XDS_PORT
from adsum.config.gateway import GatewayConfig
from adsum.core import validation
from adsum.envoy.process import file_limits
from adsum.envoy.process.binary import EnvoyBinary, find_envoy
from adsum.gateway.profile import GatewayProfile, split_address
from adsum.settings import OFF

CA_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the authorities that they trust: Debian, Fedora, macOS and the BSDs."""

SocketAddress = tuple[str, int]
"""A host and a port."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """One gateway. `registry`: where the nodes of its registry talk to gateways; `monitor`: None is nowhere.

    `max_connections`: what the settings say. `files`: how many an Envoy may have open; None: any number.
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

    @property
    def connection_limit(self) -> int:
        """Callers' connections that there are files for, at most `max_connections`; 0 or less: there are none."""
        if self.max_open_files is None:
            return self.max_connections
        room = file_limits.max_connections(self.max_open_files, self.concurrency, len(self.all_addresses))
        return min(self.max_connections, room)

    @property
    def listen_addresses(self) -> tuple[SocketAddress, ...]:
        """Where it takes requests."""
        return tuple(split_address("listen", each) for each in self.profile.listen)

    @property
    def urls(self) -> list[str]:
        """The same, for people."""
        scheme = "https" if self.profile.tls_certificate else "http"
        return [f"{scheme}://{each}" for each in self.profile.listen]

    @property
    def all_addresses(self) -> tuple[SocketAddress, ...]:
        """Where it listens."""
        return (*self.listen_addresses, *([self.monitor] if self.monitor else []))


def make_plan(config: GatewayConfig, registry_nodes: Sequence[SocketAddress], zone: str = "") -> GatewayPlan:
    """The gateway that the settings describe. Raises `EnvoyNotFound` and `Invalid`."""
    shape = config.profile(zone, system_ca_file())
    return GatewayPlan(
        binary=find_envoy(config.envoy),
        node=config.node or default_node_name(shape),
        profile=shape,
        registry_nodes=tuple(registry_nodes),
        monitor=split_address("monitor", config.monitor) if config.monitor != OFF else None,
        concurrency=config.concurrency or available_processors(),
        max_connections=config.max_connections,
        drain_timeout=config.drain_timeout,
        log_level=config.log_level,
        max_open_files=max_open_files(),
    )


def default_node_name(profile: GatewayProfile) -> str:
    """The host and the first port, within what a registry takes (`rules.node`), whatever the host is called."""
    host = "".join(filter(str.isprintable, platform.node()))[: validation.MAX_ADDRESS_LENGTH]
    return f"{host or 'gateway'}-{split_address('listen', profile.listen[0])[1]}"


def registry_addresses(xds: str, url: str) -> tuple[SocketAddress, ...]:
    """Where the registry talks to gateways: what `xds` says, else its usual port at the hosts of `url`."""
    if xds:
        said = (each.strip().rpartition(":") for each in xds.split(",") if each.strip())
        return tuple((host.strip("[]"), int(port)) for host, _, port in said)
    return tuple(dict.fromkeys((urlsplit(each).hostname or "", DEFAULT_XDS_PORT) for each in parse_urls(url)))


def connect_address(listening: str) -> SocketAddress:
    """Where this host reaches what listens at HOST:PORT."""
    host, _, port = listening.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - not to listen there


def system_ca_file() -> str:
    """The file with the authorities that this system trusts; "" if it has none where it should be."""
    named = ssl.get_default_verify_paths().cafile
    return next((path for path in (named, *CA_FILES) if path and Path(path).is_file()), "")


def max_open_files() -> int | None:
    """How many files a program that we start may have open once it has raised its own limit; None: any number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if most == resource.RLIM_INFINITY else most


def available_processors() -> int:
    """How many of them we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
