"""The names and addresses for the certificate that a node makes."""

from __future__ import annotations

from urllib.parse import urlsplit

from adsum.certificates.host_addresses import find_addresses
from adsum.certificates.server_names import ServerNames, find_host_names, server_names
from adsum.config.serve import NodeConfig


def find_server_names(config: NodeConfig) -> ServerNames:
    """Returns the names of the node's host, of --tls-name and of --advertise.

    May wait for a name server. Raises `Invalid`.
    """
    advertised = urlsplit(config.advertise).hostname if config.advertise else None
    further = [*config.tls_name, *([advertised] if advertised else [])]
    return server_names(further, find_host_names(), find_addresses())
