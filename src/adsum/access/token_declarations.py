"""Declarations about tokens and invites. Like all declarations they are pure, and decided on the newest documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from adsum.core.access.invites import Invite, verify_invite
from adsum.core.access.principal import ANONYMOUS, REGISTRY_ACTOR
from adsum.core.access.tokens import NAMES_WITHOUT_SECRET, NODE_PREFIXES, Token
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, Documents, Edit
from adsum.core.catalog.draft import CatalogView
from adsum.core.errors import Invalid, NameTaken, UnknownDocument
from adsum.core.provenance import Cause
from adsum.wire.tokens import encode_invite, encode_token, parse_invite_document, parse_token_document

EXPIRED_TOKEN_KEPT: Final = 30 * 86_400.0
"""Seconds for which an expired token is still listed, so that people see why it fails. Then it is removed."""
EXPIRED_INVITE_KEPT: Final = 86_400.0
"""Seconds after which an expired invite is removed."""
REPLACE_KEPT_TOKEN: Final = (
    "to replace the token of an admin or of a gateway, remove security/admin-token or security/gateway/token in the "
    "data folder of the node"
)
EXPIRED: Final = "it has expired"
"""The reason that the history gives for the removal of an expired token or invite."""


def token_key(name: str) -> DocumentKey:
    """Returns the key of the document of a token."""
    return DocumentKey(DocumentKind.TOKEN, name)


def invite_key(id: str) -> DocumentKey:
    """Returns the key of the document of an invite."""
    return DocumentKey(DocumentKind.INVITE, id)


def find_token(documents: Documents, name: str) -> Token:
    """Returns the token. Raises `UnknownDocument`, and `Invalid` if a later version wrote what this one can't read."""
    document = documents.find(token_key(name))
    if document is None:
        raise UnknownDocument("token", name)
    parsed = parse_token_document(name, document.body)
    if isinstance(parsed, str):
        raise Invalid("token", f"the record of {name} can't be read by this version: {parsed}; revoke it, or upgrade")
    return parsed


def find_invite(documents: Documents, id: str) -> Invite | None:
    """Returns the invite; None if there is none that can be read."""
    document = documents.find(invite_key(id))
    parsed = parse_invite_document(id, document.body) if document is not None else None
    return parsed if isinstance(parsed, Invite) else None


def create_token(token: Token, caller: Caller, reason: str) -> Declaration:
    """Declares a new token. Raises `NameTaken` if another token has the name and has not expired.

    A token without a secret, such as `anonymous`, is replaced: nobody loses a secret by that. Raises `Invalid` if a
    caller that proves nothing would take the scope admin from all such callers while no other token has it.
    """
    declare = declarations.declare(token_key(token.name), encode_token(token), caller, reason=reason)

    def decide(view: CatalogView) -> list[Edit]:
        if token.name not in NAMES_WITHOUT_SECRET:
            _require_free_name(view.documents, token, replace_expired_at=caller.at)
        elif token.name == caller.principal.name == ANONYMOUS:
            _require_admin(view.documents, token, caller.at)
        return declare(view)

    return decide


def _require_admin(documents: Documents, token: Token, now: float) -> None:
    """Raises `Invalid` if nobody had the scope admin once the token is declared."""
    if token.scopes.is_admin and token.expires is None:
        return
    tokens = documents.by_kind[DocumentKind.TOKEN]
    others = [parse_token_document(name, tokens[name].body) for name in tokens if name not in NAMES_WITHOUT_SECRET]
    if any(isinstance(known, Token) and known.scopes.is_admin and not known.has_expired(now) for known in others):
        return
    raise Invalid(
        "scopes",
        "must have admin while no other token has it, or nobody could manage tokens: first create one with "
        "`adsum token create NAME --scope admin`",
    )


def rotate_token(name: str, secret: str, overlap: float, caller: Caller) -> Declaration:
    """Gives a token a new secret.

    Raises `UnknownDocument`, and `Invalid` for a token that has no secret, that a node keeps, or that has expired.
    """
    if name in NAMES_WITHOUT_SECRET:
        raise Invalid("token", f"must be a token with a secret: nobody sends {name}")
    if name.startswith(NODE_PREFIXES):
        raise Invalid("token", f"must not be {name}, which its node keeps: {REPLACE_KEPT_TOKEN}")

    def decide(view: CatalogView) -> list[Edit]:
        token = find_token(view.documents, name)
        if token.has_expired(caller.at):
            raise Invalid("token", f"must not have expired, as {name} has: create a new one of the name")
        rotated = token.rotated(secret, caller.at, overlap)
        return declarations.declare(token_key(name), encode_token(rotated), caller)(view)

    return decide


def join(invite_id: str, invite_secret: str, token: Token, caller: Caller) -> Declaration:
    """Declares the token of a host that joins, and consumes the invite, in one batch.

    The role and the scopes of the token become those of the invite. Raises `Unauthenticated` for an invite that is not
    accepted, and `NameTaken`.
    """

    def decide(view: CatalogView) -> list[Edit]:
        invite = verify_invite(find_invite(view.documents, invite_id), invite_secret, caller.at)
        _require_free_name(view.documents, token)
        joined = replace(token, role=invite.role, scopes=invite.scopes)
        reason = f"joined by the invite {invite_id}"
        # The invite comes first: if a store must split the batch, a crash in between makes no token.
        return [
            *_consume(invite, reason, caller)(view),
            *declarations.declare(token_key(token.name), encode_token(joined), caller, reason=reason)(view),
        ]

    return decide


def _consume(invite: Invite, reason: str, caller: Caller) -> Declaration:
    left = invite.used()
    if left is None:
        return declarations.withdraw(invite_key(invite.id), reason, caller)
    return declarations.declare(invite_key(invite.id), encode_invite(left), caller, reason=reason)


def _require_free_name(documents: Documents, token: Token, replace_expired_at: float | None = None) -> None:
    """Raises `NameTaken` if there is another token of the name, unless it has expired by `replace_expired_at`.

    The name owns what the expired token registered. So whoever manages tokens may give it to another token; a host
    that joins chooses a name by itself, and may not.
    """
    document = documents.find(token_key(token.name))
    if document is None:
        return
    known = parse_token_document(token.name, document.body)
    if isinstance(known, Token) and known.id == token.id:
        return
    if isinstance(known, Token) and replace_expired_at is not None and known.has_expired(replace_expired_at):
        return
    role = f"a {known.role.value} token" if isinstance(known, Token) else "a token"
    raise NameTaken(
        f"there is already {role} named {token.name}: choose another name, or revoke that one first with "
        f"`adsum token revoke {token.name}`"
    )


def mark_used(days: Mapping[str, float]) -> Declaration:
    """Records the day of the last use of tokens, given by id. The history leaves such edits out.

    The document keeps the provenance of the edit before, so it still shows who declared the token.
    """

    def decide(view: CatalogView) -> list[Edit]:
        edits = []
        for document in view.documents.by_kind[DocumentKind.TOKEN].values():
            token = parse_token_document(document.key.name, document.body)
            if isinstance(token, Token) and days.get(token.id, 0.0) > token.used:
                used = Document(document.key, encode_token(replace(token, used=days[token.id])), document.provenance)
                edits.append(Edit(document.key, used, document.provenance, document, is_recorded=False))
        return edits

    return decide


def remove_expired(now: float) -> Declaration:
    """Withdraws tokens and invites that expired long ago. `now` is on the wall clock."""
    caller = Caller(REGISTRY_ACTOR, now)

    def decide(view: CatalogView) -> list[Edit]:
        documents = view.documents
        overdue = [
            document
            for document in documents.by_kind[DocumentKind.TOKEN].values()
            if isinstance(token := parse_token_document(document.key.name, document.body), Token)
            and token.has_expired(now - EXPIRED_TOKEN_KEPT)
            # Without the token `anonymous`, callers that prove nothing would have the default scopes again.
            and token.name not in NAMES_WITHOUT_SECRET
        ] + [
            document
            for document in documents.by_kind[DocumentKind.INVITE].values()
            if isinstance(invite := parse_invite_document(document.key.name, document.body), Invite)
            and invite.expires <= now - EXPIRED_INVITE_KEPT
        ]
        provenance = caller.provenance(Cause.WITHDRAWN, EXPIRED)
        return [Edit(document.key, None, provenance, document) for document in overdue]

    return decide
