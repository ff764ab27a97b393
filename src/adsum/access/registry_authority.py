"""The record of the registry's authority in the catalog: nodes over one store notice by it that they belong together.

The first secure node claims it. A node with another authority is refused: its peers would not trust it, and hosts that
joined by one node could not use the other one. A node without TLS and tokens is refused too, since it would let
everyone change what the other nodes protect.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import DocumentKey, DocumentKind, Documents, Edit
from adsum.core.catalog.draft import CatalogView
from adsum.core.errors import AdsumError, Invalid
from adsum.core.nodes.sharding import Peer
from adsum.wire.codec import decode, encode

AUTHORITY_KEY: Final = DocumentKey(DocumentKind.AUTHORITY, "registry")
HTTPS: Final = "https://"


class AuthorityRecord(Struct, frozen=True, omit_defaults=True):
    """The document of the authority. A later version must be able to read it, so defaults never change.

    `hash` is SHA-256 of its public key in hex. `external`: the operator provides the certificates of all nodes, and
    `hash` is "".
    """

    hash: str = ""
    external: bool = False


class AnotherAuthority(AdsumError):
    """The registry has another authority than this node."""


def find_authority(documents: Documents) -> AuthorityRecord | None:
    """Returns the record of the authority; None if no secure node has used this catalog.

    A record that this version can't read counts as one of an unknown authority.
    """
    document = documents.find(AUTHORITY_KEY)
    if document is None:
        return None
    try:
        return decode(document.body, AuthorityRecord)
    except Invalid:
        return AuthorityRecord()


def claim_authority(record: AuthorityRecord, caller: Caller, *, replaces: bool = False) -> Declaration:
    """Declares the authority of the first secure node. Deciding raises `AnotherAuthority` if there is another one.

    `replaces`: another authority is replaced, because no other node can use this catalog.
    """
    declare = declarations.declare(AUTHORITY_KEY, encode(record), caller, reason="the authority of the first node")

    def decide(view: CatalogView) -> list[Edit]:
        known = find_authority(view.documents)
        if known == record:
            return []
        if known is not None and not replaces:
            raise AnotherAuthority(f"the registry has the authority {_describe(known)}, not {_describe(record)}")
        return declare(view)

    return decide


def require_no_authority(documents: Documents) -> None:
    """Raises `Invalid` if secure nodes share this catalog with a node that is open to everyone."""
    if find_authority(documents) is not None:
        raise Invalid(
            "secure",
            "must be given: the nodes of this registry serve TLS and require tokens, and this node would let everyone "
            "change their catalog. Join it with a line of `adsum token invite --for node`, and start it with --secure",
        )


def require_same_scheme(peers: Iterable[Peer], *, serves_tls: bool) -> None:
    """Raises `Invalid` if a living node serves TLS and this one does not, or the other way round."""
    for peer in peers:
        if peer.url and peer.url.startswith(HTTPS) is not serves_tls:
            if serves_tls:
                raise Invalid(
                    "secure",
                    f"can't be used while {peer.name} at {peer.url} serves without TLS and tokens: stop all nodes "
                    "without TLS first",
                )
            raise Invalid(
                "secure",
                f"must be given, since {peer.name} at {peer.url} serves TLS: join this node with a line of "
                "`adsum token invite --for node`, and start it with --secure",
            )


def _describe(record: AuthorityRecord) -> str:
    if record.external:
        return "of the operator's own certificates"
    return f"with the hash {record.hash[:16]}…" if record.hash else "that a later version has recorded"
