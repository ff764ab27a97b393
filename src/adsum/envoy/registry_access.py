"""Decides where a gateway reaches its registry over xDS, and by which files the two recognize each other."""

from __future__ import annotations

from pathlib import Path

from adsum.client.credentials.folder import CredentialsFolder
from adsum.client.credentials.xds import (
    XdsCredentials,
    find_joined_registry,
    folder_credentials,
    joined_xds_credentials,
)
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
    named = [part.strip() for part in addresses.split(",") if part.strip()]
    return nodes, joined_xds_credentials(named, joined, may_lack_certificate=True)


def node_access(
    config: GatewayConfig, node: SocketAddress, folder: Path | None, *, is_external: bool
) -> tuple[tuple[SocketAddress, ...], XdsCredentials | None]:
    """Returns the same for a gateway in the process of a registry node.

    `node`: the xDS address of that node. `folder`: the credentials folder that the node keeps for its gateway; None if
    the node speaks plain text. `is_external`: the node has the operator's own certificates and keeps no folder. Raises
    `Invalid`.
    """
    if folder is None:
        return (node,), None
    if config.xds_cert or is_external:
        if not config.xds_cert:
            raise Invalid(
                "xds_cert",
                "must be given, with xds_key, in the table [gateway], for a gateway beside a node with --tls-cert: "
                "a certificate of an authority in --tls-client-ca",
            )
        return (registry_addresses(config.xds, "") if config.xds else (node,)), _own_credentials(config)
    try:
        known = CredentialsFolder(folder).read().xds
    except FileNotFoundError:  # The node makes it when it starts.
        known = ()
    nodes = registry_addresses(",".join(known), "") if known else (node,)
    return nodes, folder_credentials(folder)


def _own_credentials(config: GatewayConfig) -> XdsCredentials:
    authority = config.xds_authority or system_ca_file()
    if not authority:
        raise Invalid("xds_authority", "must be given: this system has no file of trusted authorities")
    return XdsCredentials(
        Path(authority).absolute(),
        Path(config.xds_cert).absolute() if config.xds_cert else None,
        Path(config.xds_key).absolute() if config.xds_key else None,
    )
