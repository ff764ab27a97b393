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
    if not authority.can_sign or authority.expires <= now:
        return False
    pair = _load(folder)
    if (
        pair is not None
        and token_id_of(pair.leaf) == token.id
        and now < certificate_life(pair.leaf, name).due(RENEW_AT)
        and authority.has_signed(pair.leaf)
    ):
        return False
    key = new_key() if pair is None else decode_key("data", pair.key)
    if pair is None:
        folder.write(KEY, encode_key(key))
    chain = authority.sign(create_request(key, name), name=name, token_id=token.id, role=TokenRole.PLAIN, now=now)
    folder.write(CERTIFICATE, chain)
    return True


def _load(folder: SecurityFolder) -> KeyPair | None:
    """Returns the certificate and its key; None if one is missing or unreadable, or if they don't belong together."""
    try:
        pair = make_pair(folder.read(CERTIFICATE) or b"", folder.read(KEY) or b"")
        decode_key("data", pair.key)
    except Invalid:
        return None
    return pair
