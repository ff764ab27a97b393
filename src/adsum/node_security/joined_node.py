"""The files of a node that joined a registry: it has the authority's certificate, but not its key."""

from __future__ import annotations

from adsum.certificates.authority import Authority
from adsum.certificates.pairs import make_pair
from adsum.core.access.tokens import format_token
from adsum.core.errors import Invalid
from adsum.node_security.node_files import install_chain, load_authority, token_in
from adsum.node_security.security_folder import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    NODE_CERTIFICATE,
    NODE_KEY,
    NODE_TOKEN,
    SecurityFolder,
)


def check_may_join(folder: SecurityFolder, authority_hash: str) -> None:
    """Raises `Invalid` if the folder has the key of another authority, which would be lost for its registry."""
    if folder.read(AUTHORITY_KEY) is None:
        return
    own = load_authority(folder)
    if own is None or own.hash != authority_hash:
        raise Invalid(
            "data",
            f"{folder.path} has the key of the authority of another registry: join with --data and another folder, or "
            "remove that one if nobody needs that registry any more",
        )


def write_joined_node(folder: SecurityFolder, authority: str, chain: str, key: str, token: str) -> None:
    """Writes what a node got when it joined. Raises `Invalid`, before anything is written, if it does not fit."""
    pair = make_pair(chain.encode(), key.encode(), "data", "data")
    signer = Authority.load(authority.encode())
    if not signer.has_signed(pair.leaf):
        raise Invalid("data", "is not written: the authority of the registry did not sign the certificate of this node")
    check_may_join(folder, signer.hash)
    contents = {AUTHORITY_CERTIFICATE: authority, NODE_KEY: key, NODE_CERTIFICATE: chain, NODE_TOKEN: f"{token}\n"}
    for name, content in contents.items():
        folder.write(name, content.encode())


def read_node_token(folder: SecurityFolder) -> str:
    """Returns the token of a node that joined. Raises `Invalid`; no message repeats what the file holds."""
    content = folder.read(NODE_TOKEN)
    remedy = "run `adsum join` with a line of `adsum token invite --for node`"
    if content is None:
        raise Invalid("data", f"{folder.file(NODE_TOKEN)} is missing, which proves this node: {remedy}")
    token = token_in(content)
    if token is None:
        raise Invalid("data", f"{folder.file(NODE_TOKEN)} holds no token of this registry: {remedy}")
    return format_token(*token)


def install_renewed(folder: SecurityFolder, authority: bytes, chain: bytes) -> None:
    """Takes over a certificate of this node, and of its authority, that another node signed.

    Raises `Invalid`, and keeps the old ones, if they do not fit: the authority must have the key that it has now.
    """
    known, new = load_authority(folder), Authority.load(authority)
    if known is None or known.hash != new.hash:
        raise Invalid("data", "keeps its certificates: another node presented another authority")
    pair = make_pair(chain, folder.read(NODE_KEY) or b"", "data", "data")
    if not new.has_signed(pair.leaf):
        raise Invalid("data", "keeps its certificates: the authority did not sign the new one")
    if new.expires > known.expires:
        folder.write(AUTHORITY_CERTIFICATE, new.certificate_pem())
    install_chain(folder, chain)
