"""The certificates that a node without the authority's key gets from a node that has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from adsum.certificates.authority import Authority
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenParts, format_token
from adsum.node_security.joined_node import install_renewed, read_node_token
from adsum.node_security.local_credentials import LocalCredentials
from adsum.node_security.node_files import own_request
from adsum.node_security.security_folder import SecurityFolder
from adsum.peers.issuing_peers import NewCertificate

RequestCertificate = Callable[[bytes, str, bytes, str], Awaitable[NewCertificate]]
"""Has a node that holds the authority's key sign a request (PEM), proved by a token (`Peers.request_certificate`)."""

_log = logging.getLogger("adsum.security")


async def renew_node_by_others(
    folder: SecurityFolder,
    authority: Authority,
    node: str,
    names: ServerNames,
    request_certificate: RequestCertificate,
) -> None:
    """Replaces the certificate of the node. Raises `AdsumError`."""
    token = await asyncio.to_thread(read_node_token, folder)
    request = await asyncio.to_thread(own_request, folder, node, names)
    new = await request_certificate(request, token, authority.certificate_pem(), authority.hash)
    await asyncio.to_thread(install_renewed, folder, new.authority, new.chain)


async def renew_local_by_others(
    credentials: LocalCredentials,
    token: TokenParts,
    authority: Authority,
    now: float,
    request_certificate: RequestCertificate,
) -> None:
    """Replaces the certificate of a program on this host if that is due. Raises `AdsumError`.

    `token` is the one of its credentials, and `now` the time on the wall clock.
    """
    if not await asyncio.to_thread(credentials.needs_certificate, authority, token.id, now):
        return
    request = await asyncio.to_thread(credentials.certificate_request)
    new = await request_certificate(request, format_token(*token), authority.certificate_pem(), authority.hash)
    await asyncio.to_thread(credentials.install_certificate, new.chain, token.id)
    _log.info("the certificate of %s was renewed", credentials.name)
