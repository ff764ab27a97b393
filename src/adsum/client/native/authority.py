"""Fetches the certificate of a registry's authority, and accepts it by the hash of its public key."""

from __future__ import annotations

import ssl
from typing import Final

from adsum.client.errors import AuthorityMismatch, NodeUnreachable
from adsum.client.native.transport import Transport
from adsum.core.errors import Invalid
from adsum.core.validation import without_credentials
from adsum.wire.codec import decode
from adsum.wire.tokens import AuthorityView

FETCH_TIMEOUT: Final = 5.0
"""Seconds that a node has to present its authority."""
AUTHORITY_PATH: Final = "/api/v1/authority"


async def fetch_authority(node: str) -> str:
    """Returns the certificate of the authority that a node presents, as PEM. Nothing about the node is verified.

    Raises `NodeUnreachable`.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # The hash decides, and nothing secret is sent.
    transport = Transport(context)
    try:
        reply = await transport.request("GET", node + AUTHORITY_PATH, timeout=FETCH_TIMEOUT, fresh=True)
    finally:
        await transport.close()
    if reply.status != 200:
        raise NodeUnreachable(f"it answered {AUTHORITY_PATH} with status {reply.status}: it may have no authority")
    try:
        return decode(reply.body, AuthorityView).certificate
    except Invalid as error:
        raise NodeUnreachable(f"its authority can't be decoded: {error}") from None


def accept_authority(certificate: str, expected_hash: str, node: str) -> str:
    """Returns the first certificate in a PEM text, alone, if its public key has the hash.

    The others are dropped: nothing proves them. Raises `AuthorityMismatch`.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from adsum.certificates.certificate import certificate_hash, parse_certificates

    try:
        first = parse_certificates("authority", certificate.encode())[0]
    except Invalid as error:
        raise AuthorityMismatch(
            f"{without_credentials(node)} presents an authority that can't be read: {error}"
        ) from None
    found = certificate_hash(first)
    if found != expected_hash:
        raise AuthorityMismatch(
            f"{without_credentials(node)} presents another authority than expected (hash {found}, expected "
            f"{expected_hash}): it belongs to another registry, or someone intercepts the connection. Get a new "
            "join line with `adsum token invite` on the registry"
        )
    return first.public_bytes(Encoding.PEM).decode()
