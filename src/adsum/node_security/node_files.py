"""Makes the files of a secure node: the authority, the node's certificate, and the admin token.

Whatever exists and is still right is kept. The node's key stays the same when its certificate is renewed, so that the
two files always belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from adsum.access.new_tokens import make_id, make_token
from adsum.certificates.authority import Authority, token_id_of
from adsum.certificates.certificate import parse_certificates
from adsum.certificates.expiry import RENEW_AT, certificate_life
from adsum.certificates.pairs import KeyPair, make_pair
from adsum.certificates.requests import create_request, decode_key, encode_key, new_key
from adsum.certificates.server_names import ServerNames
from adsum.client.credentials.folder import parse_token_file
from adsum.core.access.tokens import TokenParts, TokenRole, format_token, parse_token
from adsum.core.errors import AdsumError, Invalid
from adsum.node_security.security_folder import (
    ADMIN_TOKEN,
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    NEW_AUTHORITY,
    NODE_CERTIFICATE,
    NODE_KEY,
    NODE_TOKEN,
    SecurityFolder,
)
from adsum.node_security.token_names import node_token_name


@dataclass(frozen=True, slots=True)
class MadeFiles:
    """The authority of a node, its certificate, and the names of the files that were made."""

    authority: Authority
    pair: KeyPair
    made: Sequence[str] = ()


def load_authority(folder: SecurityFolder) -> Authority | None:
    """Returns the authority in the folder, with its key if the folder has that; None if there is no authority.

    Raises `Invalid` if the files can't be used.
    """
    certificate, key = folder.read(AUTHORITY_CERTIFICATE), folder.read(AUTHORITY_KEY)
    if certificate is None:
        return None
    try:
        return Authority.load(certificate, key)
    except Invalid as error:
        raise Invalid("data", f"{folder.path}: {AUTHORITY_CERTIFICATE}: the authority {error.problem}") from None


def prepare_authority(folder: SecurityFolder, now: float) -> tuple[Authority, list[str]]:
    """Returns the authority in the folder, and the files that were made. It is made if there is none.

    The key is written first: a certificate that is missing beside it is made again, with the same hash.
    """
    authority = load_authority(folder)
    if authority is not None:
        return authority, []
    made = [AUTHORITY_CERTIFICATE]
    pem = folder.read(AUTHORITY_KEY)
    if pem is None:
        pem = encode_key(new_key())
        folder.write(AUTHORITY_KEY, pem)
        made.append(AUTHORITY_KEY)
    authority = Authority.of_key(_key(folder, AUTHORITY_KEY, pem), now)
    folder.write(AUTHORITY_CERTIFICATE, authority.certificate_pem())
    return authority, made


def prepare_files(folder: SecurityFolder, node: str, names: ServerNames, now: float) -> MadeFiles:
    """Returns the authority and the certificate of the node, which are made where they are missing or no longer right.

    A certificate is right if the authority signed it for these names, and less than half of its life is over. Raises
    `Invalid` if a file can't be used, or if this node has neither a certificate nor the key of the authority.
    """
    authority, made = prepare_authority(folder, now)
    pair = load_pair(folder)
    # An authority that has expired signs nothing. The node starts all the same: `renew_files` mends it while it runs.
    may_sign = authority.can_sign and now < authority.expires
    if pair is None or (may_sign and not is_right(pair, authority, names, now)):
        if not authority.can_sign:
            raise Invalid(
                "data",
                f"{folder.path} has the certificate of an authority, but none of this node: run `adsum join` with a "
                "line of `adsum token invite --for node`",
            )
        if pair is None and folder.read(NODE_KEY) is None:
            made.append(NODE_KEY)
        pair = sign_own(folder, authority, node, names, now)
        made.append(NODE_CERTIFICATE)
    return MadeFiles(authority, pair, made)


def renew_files(folder: SecurityFolder, node: str, names: ServerNames, now: float) -> MadeFiles:
    """Signs the certificates of the authority and of the node anew, with the same keys. Raises `Invalid`."""
    authority, made = prepare_authority(folder, now)
    if not authority.can_sign:
        raise Invalid(
            "data",
            f"{folder.path} lacks the key of the authority: run this on a node that has {AUTHORITY_KEY}, or join again",
        )
    authority = authority.renewed(now)
    folder.write(AUTHORITY_CERTIFICATE, authority.certificate_pem())
    pair = sign_own(folder, authority, node, names, now)
    return MadeFiles(authority, pair, sorted({*made, AUTHORITY_CERTIFICATE, NODE_CERTIFICATE}))


def prepare_new_authority(folder: SecurityFolder, node: str, names: ServerNames, now: float) -> MadeFiles:
    """Makes a new authority in place of the one in the folder, with a new certificate of the node. Raises `Invalid`.

    At its next start the node makes it the authority of the registry.
    """
    for name in (AUTHORITY_KEY, AUTHORITY_CERTIFICATE, NODE_KEY, NODE_CERTIFICATE, NODE_TOKEN, ADMIN_TOKEN):
        folder.remove(name)
    made = prepare_files(folder, node, names, now)
    folder.write(NEW_AUTHORITY, made.authority.hash.encode())
    return made


def load_pair(folder: SecurityFolder) -> KeyPair | None:
    """Returns the node's certificate and key; None if one is missing, or if they do not belong together."""
    chain, key = folder.read(NODE_CERTIFICATE), folder.read(NODE_KEY)
    if chain is None or key is None:
        return None
    try:
        return make_pair(chain, key)
    except Invalid:
        return None


def is_right(pair: KeyPair, authority: Authority, names: ServerNames, now: float) -> bool:
    """Returns whether the certificate can stay: it is the authority's, for these names, and young enough."""
    leaf = pair.leaf
    return is_young(leaf, authority, now) and ServerNames.of_certificate(leaf) == names and bool(token_id_of(leaf))


def is_young(certificate: x509.Certificate, authority: Authority, now: float) -> bool:
    """Returns whether the authority signed the certificate, and less than half of its life is over."""
    return authority.has_signed(certificate) and now < certificate_life(certificate, "").due(RENEW_AT)


def own_request(folder: SecurityFolder, node: str, names: ServerNames) -> bytes:
    """Returns a request for a certificate of this node with its own key, which is made if there is none."""
    return create_request(_own_key(folder), node, names.dns_names, names.addresses)


def sign_own(folder: SecurityFolder, authority: Authority, node: str, names: ServerNames, now: float) -> KeyPair:
    """Signs a certificate of this node and writes it. The token that it names stays the same."""
    request = own_request(folder, node, names)
    token_id = _known_token_id(folder, authority) or make_id()
    chain = authority.sign(request, name=node_token_name(node), token_id=token_id, role=TokenRole.NODE, now=now)
    return install_chain(folder, chain)


def install_chain(folder: SecurityFolder, chain: bytes) -> KeyPair:
    """Writes a new certificate of the node's key. Raises `Invalid`, and keeps the old one, if it is of another key."""
    pair = make_pair(chain, folder.read(NODE_KEY) or b"")
    folder.write(NODE_CERTIFICATE, chain)
    return pair


def _known_token_id(folder: SecurityFolder, authority: Authority) -> str:
    """Returns the id of the token that the present certificate names, if this authority signed it; else ""."""
    chain = folder.read(NODE_CERTIFICATE)
    try:
        leaf = parse_certificates("data", chain or b"")[0]
    except Invalid:
        return ""
    return token_id_of(leaf) if authority.has_signed(leaf) else ""


def _own_key(folder: SecurityFolder) -> ec.EllipticCurvePrivateKey:
    pem = folder.read(NODE_KEY)
    if pem is None:
        key = new_key()
        folder.write(NODE_KEY, encode_key(key))
        return key
    return _key(folder, NODE_KEY, pem)


def _key(folder: SecurityFolder, name: str, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        return decode_key("data", pem)
    except Invalid as error:
        raise Invalid("data", f"{folder.file(name)} {error.problem}: put the right file back, or remove it") from None


def prepare_admin_token(folder: SecurityFolder) -> bool:
    """Makes the file with the admin token if it is missing or empty. Returns whether it was made."""
    content = folder.read(ADMIN_TOKEN)
    if content is not None and content.strip():
        return False
    write_token(folder, ADMIN_TOKEN, make_token())
    return True


def read_admin_token(folder: SecurityFolder) -> TokenParts | None:
    """Returns the admin token in the folder; None if the file is missing or empty.

    Raises `Invalid` if it holds something else; the message does not repeat it.
    """
    content = folder.read(ADMIN_TOKEN)
    if content is None or not content.strip():
        return None
    token = token_in(content)
    if token is None:
        raise Invalid(
            "data",
            f"{folder.file(ADMIN_TOKEN)} holds no token of this registry: remove it, and the node makes a new one",
        )
    return token


def token_in(content: bytes) -> TokenParts | None:
    """Returns the token in the content of a file; None if that is something else."""
    try:
        return parse_token(parse_token_file(content))
    except AdsumError:
        return None


def write_token(folder: SecurityFolder, name: str, token: TokenParts) -> None:
    """Writes a file with a token: one line. Raises `Invalid`."""
    folder.write(name, f"{format_token(*token)}\n".encode())
