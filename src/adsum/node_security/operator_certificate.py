"""The client certificate in the operator's credentials, for xDS, which identifies its clients by certificates."""

from __future__ import annotations

from typing import Final

from adsum.certificates.authority import Authority, token_id_of
from adsum.certificates.expiry import RENEW_AT
from adsum.certificates.pairs import KeyPair, make_pair
from adsum.certificates.requests import create_request, decode_key, encode_key, new_key
from adsum.core.access.tokens import TokenParts, TokenRole
from adsum.core.errors import Invalid
from adsum.node_security.node_files import certificate_life
from adsum.node_security.security_folder import OPERATOR_FOLDER, SecurityFolder

CERTIFICATE: Final = f"{OPERATOR_FOLDER}/client.pem"
KEY: Final = f"{OPERATOR_FOLDER}/client.key"


def prepare_operator_certificate(
    folder: SecurityFolder, authority: Authority, token: TokenParts, name: str, now: float
) -> bool:
    """Makes the certificate if it is missing, or stands for another token, or half of its life is over.

    `name` is the name of the token. Returns whether it was made. Does nothing on a node that can't sign.
    """
    if not authority.can_sign or authority.expires <= now or not is_operator_renewal_due(folder, authority, token, now):
        return False
    request = operator_request(folder, name)
    folder.write(CERTIFICATE, authority.sign(request, name=name, token_id=token.id, role=TokenRole.PLAIN, now=now))
    return True


def is_operator_renewal_due(folder: SecurityFolder, authority: Authority, token: TokenParts, now: float) -> bool:
    """Returns whether the certificate is missing, or stands for another token, or half of its life is over."""
    pair = _load(folder)
    return (
        pair is None
        or token_id_of(pair.leaf) != token.id
        or now >= certificate_life(pair.leaf, "operator").due(RENEW_AT)
        or not authority.has_signed(pair.leaf)
    )


def operator_request(folder: SecurityFolder, name: str) -> bytes:
    """Returns a request for the certificate. Its key is made if there is none. `name` is the name of the token."""
    try:
        key = decode_key("data", folder.read(KEY) or b"")
    except Invalid:
        key = new_key()
        folder.write(KEY, encode_key(key))
    return create_request(key, name)


def _load(folder: SecurityFolder) -> KeyPair | None:
    """Returns the certificate and its key; None if one is missing or unreadable, or if they don't belong together."""
    try:
        pair = make_pair(folder.read(CERTIFICATE) or b"", folder.read(KEY) or b"")
        decode_key("data", pair.key)
    except Invalid:
        return None
    return pair
