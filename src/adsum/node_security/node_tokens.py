"""The tokens of a node in the catalog, kept in step with its files: of its admin, its certificate, and its gateway.

The file rules: whoever may write the data folder of a node is admin of the registry. So a lost or leaked admin token is
replaced by removing the file.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from adsum.core.access.invites import USUAL_SCOPES
from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.access.scopes import Right, Scope, Scopes
from adsum.core.access.tokens import Token, TokenParts, TokenRole, TokenSecret, hash_secret
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import DocumentKey, DocumentKind, Edit
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError
from adsum.node_security.token_names import admin_token_name, gateway_token_name, node_token_name
from adsum.outage_log import OutageLog
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.wire.tokens import encode_token, parse_token_document

ADMIN_SCOPES: Final = Scopes([Scope(Right.ADMIN)])
NODE_SCOPES: Final = USUAL_SCOPES[TokenRole.NODE]
"""The scopes of the token that an issuing node's own certificate names. Nodes that join get the same ones."""
GATEWAY_SCOPES: Final = USUAL_SCOPES[TokenRole.GATEWAY]
"""The scopes of the token of the gateway in the process of a node. Gateways that join get the same ones."""

_log = logging.getLogger("adsum.security")


class NodeTokens:
    """The tokens of one node in the catalog."""

    def __init__(self, registry: Registry, node: str, clock: Clock) -> None:
        self._registry = registry
        self._node = node
        self._clock = clock
        self._outage = OutageLog(
            _log, "a token of this node is not in the catalog yet: %s", "the tokens of this node are in the catalog"
        )

    async def sync(self, admin: TokenParts | None, certificate_token: str, gateway: TokenParts | None = None) -> None:
        """Declares the tokens that are missing or differ.

        `admin` and `gateway` are the tokens in the files; None leaves the one in the catalog as it is.
        `certificate_token` is the id of the token in the certificate that this node signed for itself; "" if it did
        not. What can't be written is tried again at the next call.
        """
        node, wanted = self._node, list[Token]()
        if admin is not None:
            wanted.append(Token(admin_token_name(node), admin.id, ADMIN_SCOPES, _secrets(admin)))
        if certificate_token:
            wanted.append(Token(node_token_name(node), certificate_token, NODE_SCOPES, (), TokenRole.NODE))
        if gateway is not None:
            name = gateway_token_name(node)
            wanted.append(Token(name, gateway.id, GATEWAY_SCOPES, _secrets(gateway), TokenRole.GATEWAY))
        now = self._clock.wall()
        for token in wanted:
            if not _is_declared(token, self._registry.snapshot):
                await self._declare(replace(token, created=now, created_by=REGISTRY_ACTOR), now)

    async def _declare(self, token: Token, now: float) -> None:
        try:
            await self._registry.write(_declaration(token, Caller(REGISTRY_ACTOR, now)))
        except AdsumError as error:
            self._outage.failed(error)
        else:
            self._outage.recovered()
            _log.info("the token %s of this node is in the catalog", token.name)


def _secrets(token: TokenParts) -> tuple[TokenSecret, ...]:
    return (TokenSecret(hash_secret(token.secret)),)


def _is_declared(token: Token, snapshot: Snapshot) -> bool:
    """Returns whether the catalog has the token. When it was created and used does not matter."""
    document = snapshot.documents.find(DocumentKey(DocumentKind.TOKEN, token.name))
    known = parse_token_document(token.name, document.body) if document is not None else None
    return isinstance(known, Token) and (known.id, known.scopes, [*known.secrets], known.role, known.expires) == (
        token.id,
        token.scopes,
        [*token.secrets],
        token.role,
        token.expires,
    )


def _declaration(token: Token, caller: Caller) -> Declaration:
    """Declares the token, and withdraws others of the same id: the node had another name before."""
    key = DocumentKey(DocumentKind.TOKEN, token.name)
    declare = declarations.declare(key, encode_token(token), caller, reason="the token in the data folder of the node")

    def decide(view: CatalogView) -> list[Edit]:
        renamed = [
            document.key
            for name, document in view.documents.by_kind[DocumentKind.TOKEN].items()
            if name != token.name
            and isinstance(known := parse_token_document(name, document.body), Token)
            and known.id == token.id
        ]
        withdrawals = [declarations.withdraw(old, f"the node is named {token.name} now", caller) for old in renamed]
        return [edit for decision in (*withdrawals, declare) for edit in decision(view)]

    return decide
