"""Keeps the tokens of a node in the catalog in step with its files: of its admin, its certificate, and its gateway.

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
            _log, "the admin token is not in the catalog yet: %s", "the admin token is in the catalog"
        )

    async def sync(self, admin: TokenParts | None, certificate_token: str, gateway: TokenParts | None = None) -> None:
        """Declares the tokens that are missing or differ.

        `admin` and `gateway` are the tokens in the files; None leaves the one in the catalog as it is.
        `certificate_token` is the id of the token in the certificate that this node signed for itself; "" if it did
        not. What can't be written is tried again at the next call.
        """
        now = self._clock.wall()
        wanted: list[Token] = []
        if admin is not None:
            secret = TokenSecret(hash_secret(admin.secret))
            wanted.append(
                Token(
                    admin_token_name(self._node),
                    admin.id,
                    ADMIN_SCOPES,
                    (secret,),
                    created=now,
                    created_by=REGISTRY_ACTOR,
                )
            )
        if certificate_token:
            name = node_token_name(self._node)
            wanted.append(Token(name, certificate_token, NODE_SCOPES, (), TokenRole.NODE, created=now))
        if gateway is not None:
            secret = TokenSecret(hash_secret(gateway.secret))
            name = gateway_token_name(self._node)
            wanted.append(Token(name, gateway.id, GATEWAY_SCOPES, (secret,), TokenRole.GATEWAY, created=now))
        for token in (replace(one, created_by=REGISTRY_ACTOR) for one in wanted):
            if not _is_declared(token, self._registry.snapshot):
                await self._declare(token, now)

    async def _declare(self, token: Token, now: float) -> None:
        try:
            await self._registry.write(_declaration(token, Caller(REGISTRY_ACTOR, now)))
        except AdsumError as error:
            self._outage.failed(error)
        else:
            self._outage.recovered()
            _log.info("the token %s of this node is in the catalog", token.name)


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
