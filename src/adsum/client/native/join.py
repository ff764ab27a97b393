"""Joins a registry by a join line: the authority is verified before the secret of the line is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from adsum.client.actor import configured_actor, default_actor
from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.credentials.folder import MAX_ADDRESSES, RegistryCredentials, parse_token_file
from adsum.client.errors import NodeUnreachable, ProtocolViolation, RegistryUnavailable
from adsum.client.native.access_api import AccessApi
from adsum.client.native.authority import accept_authority, fetch_authority
from adsum.client.native.nodes import parse_urls
from adsum.client.native.request_sender import RequestSender
from adsum.core.access.join_line import JoinLine
from adsum.core.access.tokens import NAMES_WITHOUT_SECRET, RESERVED_NAMES
from adsum.core.errors import Invalid
from adsum.wire.tokens import JoinBody, JoinResult

FALLBACK_NAME: Final = "host"
"""The name of a joiner whose host name has no character that a name of a token may have."""
MAX_NAME_LENGTH: Final = 63
"""Characters of the name of a joiner. A longer host name is cut."""


@dataclass(frozen=True, slots=True)
class JoinedHost:
    """What a host got when it joined: the content of its credentials folder, and the scopes of its token."""

    credentials: RegistryCredentials
    scopes: Sequence[str]
    certificate: str = ""
    key: str = field(default="", repr=False)
    """The certificate of this host and its key, as PEM; "" without one."""


def joiner_name(host: str) -> str:
    """Returns a name of a token that is made from the name of a host. A host may be named `registry`, a token not."""
    allowed = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in host)
    name = allowed.strip("._-")[:MAX_NAME_LENGTH] or FALLBACK_NAME
    return f"{FALLBACK_NAME}-{name}" if name in RESERVED_NAMES | NAMES_WITHOUT_SECRET else name


async def join_registry(line: JoinLine, name: str, rng: Random) -> JoinedHost:
    """Joins by the first node of the line that can be reached. The key of the certificate never leaves this host.

    Raises `AuthorityMismatch` if a node presents another authority, `RegistryUnavailable` if no node answers, and the
    error that the registry answers.
    """
    problems = []
    for node in line.urls:
        try:
            authority = accept_authority(await fetch_authority(node), line.authority_hash, node)
            return await _join_at(node, line, authority, name, rng)
        except NodeUnreachable as error:
            problems.append(f"{node}: {error}")
        except RegistryUnavailable as error:
            problems.append(error.reason)
    raise RegistryUnavailable("; ".join(problems))


async def _join_at(node: str, line: JoinLine, authority: str, name: str, rng: Random) -> JoinedHost:
    from adsum.certificates.host_addresses import find_addresses
    from adsum.certificates.requests import create_request, encode_key, new_key
    from adsum.certificates.server_names import find_host_names, server_names

    key = new_key()
    # The registry takes these names into the certificate of a node only.
    names = server_names((), find_host_names(), find_addresses())
    request = create_request(key, name, names.dns_names, names.addresses)
    trusting = ClientCredentials(RegistryCredentials((node,), authority=authority))
    sender = RequestSender([node], actor=configured_actor("") or default_actor(), rng=rng, credentials=trusting)
    try:
        body = JoinBody(line.invite_id, line.secret, name, request.decode())
        result = await AccessApi(sender).join(body)
    finally:
        await sender.close()
    return JoinedHost(
        credentials=_credentials(result, line, authority),
        scopes=result.scopes,
        certificate=result.certificate,
        key=encode_key(key).decode() if result.certificate else "",
    )


def _credentials(result: JoinResult, line: JoinLine, authority: str) -> RegistryCredentials:
    """Returns the credentials in an answer. Raises `ProtocolViolation`.

    The authority is the one that was verified, whatever the answer says.
    """
    urls = [url for url in result.urls if url.startswith("https://")]
    try:
        known = parse_urls([*urls, *line.urls], "urls")[:MAX_ADDRESSES]
        token = parse_token_file(result.token.encode())
    except (Invalid, UnicodeError) as error:
        raise ProtocolViolation(f"the answer to the join can't be used: {error}") from None
    return RegistryCredentials(
        urls=known,
        name=result.name,
        role=result.role.value,
        xds=tuple(result.xds[:MAX_ADDRESSES]),
        authority=authority,
        authority_hash=line.authority_hash,
        token=token,
    )
