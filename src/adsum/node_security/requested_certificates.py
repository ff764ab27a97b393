"""The certificates that a node without the authority's key gets from a node that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from adsum.certificates.authority import Authority
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenParts, format_token
from adsum.node_security.joined_node import install_renewed, read_node_token
from adsum.node_security.local_credentials import LocalCredentials
from adsum.node_security.node_files import own_request, read_admin_token
from adsum.node_security.security_folder import SecurityFolder
from adsum.peers.issuing_peers import NewCertificate

RequestCertificate = Callable[[bytes, str, bytes, str], Awaitable[NewCertificate]]
"""Has a node that holds the authority's key sign a request (PEM), proved by a token (`Peers.request_certificate`)."""


async def renew_node_by_others(
    folder: SecurityFolder, authority: Authority, node: str, names: ServerNames, request: RequestCertificate
) -> None:
    """Replaces the certificate of the node. Raises `AdsumError`."""
    token = await asyncio.to_thread(read_node_token, folder)
    csr = await asyncio.to_thread(own_request, folder, node, names)
    new = await request(csr, token, authority.certificate_pem(), authority.hash)
    await asyncio.to_thread(install_renewed, folder, new.authority, new.chain)


async def renew_operator_by_others(
    folder: SecurityFolder, operator: LocalCredentials, authority: Authority, now: float, request: RequestCertificate
) -> bool:
    """Replaces the certificate of the operator's credentials if that is due. Returns whether. Raises `AdsumError`.

    `now` is the time on the wall clock.
    """
    admin = await asyncio.to_thread(_due, folder, operator, authority, now)
    if admin is None:
        return False
    csr = await asyncio.to_thread(operator.certificate_request)
    new = await request(csr, format_token(*admin), authority.certificate_pem(), authority.hash)
    await asyncio.to_thread(operator.install_certificate, new.chain, admin.id)
    return True


def _due(folder: SecurityFolder, operator: LocalCredentials, authority: Authority, now: float) -> TokenParts | None:
    """Returns the admin token if its certificate must be replaced."""
    admin = read_admin_token(folder)
    return admin if admin is not None and operator.is_certificate_due(authority, admin.id, now) else None
