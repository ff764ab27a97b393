"""Writes the credentials with which commands on the host of a node reach it: `security/operator`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from adsum.certificates.server_names import ServerNames, parse_address
from adsum.core.access.tokens import TokenParts, format_token
from adsum.core.addresses import WILDCARD_ADDRESSES, format_host_port, split_host_port
from adsum.node_security.security_folder import OPERATOR_FOLDER, SecurityFolder

FORMAT_VERSION: Final = 1
"""The version of the format of `registry.json`."""
OPERATOR_ROLE: Final = "operator"


def write_operator_folder(
    folder: SecurityFolder,
    token: TokenParts,
    name: str,
    urls: Sequence[str],
    xds: Sequence[str],
    authority: bytes,
    authority_hash: str,
) -> bool:
    """Writes the files that differ. Returns whether any did. Raises `Invalid`.

    `name` is the name of the token. `authority` is empty if callers find the authority in their system.
    """
    description = {
        "version": FORMAT_VERSION,
        "role": OPERATOR_ROLE,
        "name": name,
        "urls": list(urls),
        "xds": list(xds),
        "authority_hash": authority_hash,
    }
    contents = {
        "authority.pem": authority,
        "token": f"{format_token(*token)}\n".encode(),
        "registry.json": json.dumps(description, indent=2).encode() + b"\n",
    }
    changed = [folder.write_if_changed(f"{OPERATOR_FOLDER}/{file}", content) for file, content in contents.items()]
    return any(changed)


def local_address(listen: str, names: ServerNames) -> str:
    """Returns the HOST:PORT at which callers on this host reach a listener, by a name of its certificate.

    A listener on every address is reached on loopback. If the certificate does not have the address, its host name
    `localhost` or another one is used.
    """
    host, port = split_host_port(listen)
    local = "127.0.0.1" if host in WILDCARD_ADDRESSES else host
    address = parse_address(local)
    if address is None or address in names.addresses:
        return format_host_port(local, int(port))
    usable = [name for name in names.dns_names if not name.startswith("*")]
    named = "localhost" if "localhost" in usable and address.is_loopback else next(iter(usable), local)
    return format_host_port(named, int(port))
