"""Decides where a gateway reaches its registry over xDS, and by which files the two recognize each other."""

from __future__ import annotations

from pathlib import Path

from adsum.client.credentials.xds import XdsCredentials, find_joined_registry, joined_xds_credentials
from adsum.config.gateway import GatewayConfig
from adsum.core.errors import Invalid
from adsum.envoy.plan import SocketAddress, registry_addresses, system_ca_file


def registry_access(config: GatewayConfig, url: str) -> tuple[tuple[SocketAddress, ...], XdsCredentials | None]:
    """Returns the xDS addresses of the registry at `url`, and the files for TLS; without files it is plain text.

    The settings of the gateway outrank what this host has got when it joined the registry. Raises `Invalid`.
    """
    joined = find_joined_registry(url)
    addresses = config.xds or (",".join(joined.xds) if joined is not None else "")
    nodes = registry_addresses(addresses, url)
    if config.xds_cert or config.xds_authority:
        return nodes, _own_credentials(config)
    return nodes, joined_xds_credentials([part.strip() for part in addresses.split(",") if part.strip()], joined)


def _own_credentials(config: GatewayConfig) -> XdsCredentials:
    authority = config.xds_authority or system_ca_file()
    if not authority:
        raise Invalid("xds_authority", "must be given: this system has no file of trusted authorities")
    return XdsCredentials(
        Path(authority).absolute(),
        Path(config.xds_cert).absolute() if config.xds_cert else None,
        Path(config.xds_key).absolute() if config.xds_key else None,
    )
