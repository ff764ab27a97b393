"""Tokens and invites: created, listed, rotated and revoked. A secret is in one response, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from adsum import wire
from adsum.access.authority import AuthorityService
from adsum.access.control import AccessControl
from adsum.access.new_tokens import make_id, make_secret
from adsum.access.registry_addresses import RegistryAddresses
from adsum.access.token_declarations import create_token, find_token, invite_key, rotate_token, token_key
from adsum.core import validation
from adsum.core.access.invites import SINGLE_USE_ROLES, USUAL_LIFETIMES, USUAL_SCOPES, Invite
from adsum.core.access.join_line import MAX_NODES, JoinLine
from adsum.core.access.scopes import Scopes, parse_scopes
from adsum.core.access.tokens import (
    NAMES_WITHOUT_SECRET,
    NODE_PREFIXES,
    Token,
    TokenRole,
    TokenSecret,
    check_token_name,
    format_token,
    hash_secret,
)
from adsum.core.addresses import format_host_port
from adsum.core.catalog import declarations
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind
from adsum.core.errors import Forbidden, Invalid
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.problems import NoAuthority
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.wire.tokens import (
    InviteBody,
    InviteList,
    InviteView,
    IssuedInvite,
    IssuedToken,
    RotateBody,
    TokenBody,
    TokenList,
    TokenView,
    encode_invite,
    parse_invite_document,
    parse_token_document,
)

HTTPS_PORT: Final = 443
NO_AUTHORITY: Final = (
    "a join line names the authority of the registry, by which the joiner recognizes it, and this registry has none of "
    "its own: start it with --secure, or create a token with `adsum token create`"
)
NO_ADDRESS: Final = (
    "a join line names addresses at which other hosts reach the registry over TLS, and none is known: set --advertise"
)


def check_name(field: str, name: str) -> None:
    """Requires a name that a caller may choose for a token. Raises `Invalid`."""
    check_token_name(field, name)
    if name.startswith(NODE_PREFIXES):
        raise Invalid(field, f"must not begin with {' or '.join(NODE_PREFIXES)}: nodes make the tokens of such names")


class TokenOperations:
    """The operations about tokens and invites."""

    def __init__(
        self,
        registry: Registry,
        access: AccessControl,
        clock: Clock,
        authority: AuthorityService | None,
        addresses: Callable[[], RegistryAddresses],
    ) -> None:
        """`authority` is None if the registry serves no TLS."""
        self._registry = registry
        self._access = access
        self._clock = clock
        self._authority = authority
        self._addresses = addresses

    async def list_tokens(self, _: ApiRequest) -> ApiReply:
        documents = self._registry.snapshot.documents.of_kind(DocumentKind.TOKEN)
        views = [self._token_view(document) for document in documents]
        return ApiReply(200, wire.encode(TokenList(views)))

    async def read_token(self, request: ApiRequest) -> ApiReply:
        return ApiReply(200, wire.encode(self._view(find_token(self._registry.snapshot.documents, _name(request)))))

    async def create_token(self, request: ApiRequest) -> ApiReply:
        body = await request.body(TokenBody)
        check_name("name", body.name)
        now = self._clock.wall()
        caller = request.caller(now)
        scopes = _granted(request, body.parsed_scopes())
        id, secret = make_id(), make_secret()
        has_secret = body.name not in NAMES_WITHOUT_SECRET
        token = Token(
            body.name,
            id,
            scopes,
            (TokenSecret(hash_secret(secret)),) if has_secret else (),
            expires=None if body.lifetime is None else now + body.lifetime,
            created=now,
            created_by=caller.actor,
        )
        await self._registry.write(create_token(token, caller, _checked_reason(body)))
        text = format_token(id, secret) if has_secret else ""
        return ApiReply(201, wire.encode(IssuedToken(text, self._view(token))))

    async def rotate_token(self, request: ApiRequest) -> ApiReply:
        body, name, secret = await request.body(RotateBody), _name(request), make_secret()
        _granted(request, find_token(self._registry.snapshot.documents, name).scopes)
        await self._registry.write(rotate_token(name, secret, body.overlap, request.caller(self._clock.wall())))
        token = find_token(self._registry.snapshot.documents, name)
        return ApiReply(200, wire.encode(IssuedToken(format_token(token.id, secret), self._view(token))))

    async def revoke_token(self, request: ApiRequest) -> ApiReply:
        return await self._withdraw(request, token_key(_name(request)))

    async def list_invites(self, _: ApiRequest) -> ApiReply:
        documents = self._registry.snapshot.documents.of_kind(DocumentKind.INVITE)
        parsed = ((document, parse_invite_document(document.key.name, document.body)) for document in documents)
        views = [_invite_view(document, invite) for document, invite in parsed if isinstance(invite, Invite)]
        return ApiReply(200, wire.encode(InviteList(views)))

    async def create_invite(self, request: ApiRequest) -> ApiReply:
        body = await request.body(InviteBody)
        role = TokenRole(body.role)
        given = USUAL_SCOPES[role] if body.scopes is None else parse_scopes("scopes", body.scopes)
        scopes = _granted(request, given)
        nodes, hash = self._line_parts()
        now, secret = self._clock.wall(), make_secret()
        invite = Invite(
            make_id(),
            role,
            scopes,
            (TokenSecret(hash_secret(secret)),),
            now + (USUAL_LIFETIMES[role] if body.lifetime is None else body.lifetime),
            1 if role in SINGLE_USE_ROLES else None,
            now,
        )
        line = str(JoinLine(nodes, invite.id, secret, hash))
        await self._write(
            declarations.declare(
                invite_key(invite.id), encode_invite(invite), request.caller(now), reason=_checked_reason(body)
            )
        )
        issued = IssuedInvite(line, role, scopes.texts(), invite.expires, invite.uses_left is not None)
        return ApiReply(201, wire.encode(issued))

    async def revoke_invite(self, request: ApiRequest) -> ApiReply:
        return await self._withdraw(request, invite_key(request.path["invite"]))

    def _line_parts(self) -> tuple[list[str], str]:
        """Returns the nodes and the hash of the authority for a join line. Raises `NoAuthority`."""
        hash = self._authority.hash() if self._authority is not None else ""
        if not hash:
            raise NoAuthority(NO_AUTHORITY)
        parts = [urlsplit(url) for url in self._addresses().urls]
        nodes = [
            format_host_port(part.hostname, part.port or HTTPS_PORT)
            for part in parts
            if part.scheme == "https" and part.hostname
        ]
        if not nodes:
            raise NoAuthority(NO_ADDRESS)
        return nodes[:MAX_NODES], hash

    async def _withdraw(self, request: ApiRequest, key: DocumentKey) -> ApiReply:
        reason = request.query.get("reason", "")
        return await self._write(declarations.withdraw(key, reason, request.caller(self._clock.wall())))

    async def _write(self, declaration: Declaration) -> ApiReply:
        revision = await self._registry.write(declaration)
        return ApiReply(200, wire.encode(wire.WriteResult(self._registry.snapshot.epoch, revision)))

    def _token_view(self, document: Document) -> TokenView:
        """Returns the view of a token. One that this version can't read is shown without scopes: it is not accepted."""
        token = parse_token_document(document.key.name, document.body)
        return self._view(token) if isinstance(token, Token) else TokenView(document.key.name, [])

    def _view(self, token: Token) -> TokenView:
        used = max(token.used, self._access.last_used.get(token.id, 0.0))
        return TokenView(
            token.name,
            token.scopes.texts(),
            token.role,
            token.expires,
            token.created,
            used or None,
            token.valid_secrets(self._clock.wall()),
            token.created_by,
        )


def _name(request: ApiRequest) -> str:
    name: str = request.path["token"]
    return name


def _checked_reason(body: TokenBody | InviteBody) -> str:
    """Returns the reason, which the history shows. Raises `Invalid` for control characters."""
    validation.text("reason", body.reason, validation.MAX_VALUE_LENGTH)
    return body.reason


def _granted(request: ApiRequest, scopes: Scopes) -> Scopes:
    """Returns the scopes. Raises `Forbidden` if they allow what the caller may not do."""
    if not request.principal.scopes.includes(scopes):
        raise Forbidden(f"{request.principal.name} may not give more scopes than it has")
    return scopes


def _invite_view(document: Document, invite: Invite) -> InviteView:
    return InviteView(
        invite.id,
        invite.role,
        invite.scopes.texts(),
        invite.expires,
        invite.uses_left,
        invite.created,
        document.provenance.actor,
    )
