"""Joining: a host proves an invite, and gets a token and a certificate of its own. Also the renewal of certificates."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from adsum import wire
from adsum.access import token_declarations
from adsum.access.authority import AuthorityService
from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.access.new_tokens import make_id, make_secret
from adsum.access.registry_addresses import RegistryAddresses
from adsum.access.token_declarations import find_invite
from adsum.core.access.actions import Action
from adsum.core.access.invites import verify_invite
from adsum.core.access.scopes import Scopes
from adsum.core.access.tokens import NAMES_WITHOUT_SECRET, Token, TokenRole, TokenSecret, format_token, hash_secret
from adsum.core.catalog.decisions import Caller
from adsum.core.errors import AdsumError, Forbidden, Invalid
from adsum.dialects.native.asgi import NO_STORE, ApiReply
from adsum.dialects.native.operations.tokens import check_name
from adsum.dialects.native.ports import OtherNodes
from adsum.dialects.native.problems import NoAuthority, NoAuthorityKey
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.peers.issuing_peers import NoIssuingNode
from adsum.ports import CLIENT_CERTIFICATE, Clock
from adsum.registry import Registry
from adsum.wire.tokens import AuthorityView, CallerView, CertificateBody, CertificateResult, JoinBody, JoinResult

INVITE_ACTOR: Final = "invite:"
"""The start of the actor of a join, before the id of the invite. No token has such a name."""
NO_KEY: Final = (
    "this node does not have the key of the registry's authority, so it can't sign a certificate: send the request to "
    "the node that has it, the first one that was started with --secure"
)
NO_CERTIFICATES: Final = "this registry signs no certificates: its operator provides them; the token is enough"


class JoinOperations:
    """The operations by which hosts join the registry, and keep what they got."""

    def __init__(
        self,
        registry: Registry,
        access: AccessControl,
        clock: Clock,
        authority: AuthorityService | None,
        addresses: Callable[[], RegistryAddresses],
        others: OtherNodes,
    ) -> None:
        """`authority` is None if the registry serves no TLS."""
        self._others = others
        self._registry = registry
        self._access = access
        self._clock = clock
        self._authority = authority
        self._addresses = addresses

    async def join(self, request: ApiRequest) -> ApiReply:
        body = await request.body(JoinBody)
        check_name("name", body.name)
        if body.name in NAMES_WITHOUT_SECRET:
            raise Invalid("name", f"must not be {body.name}, the name of a token that nobody sends")
        now, snapshot = self._clock.wall(), self._registry.snapshot
        # Wrong invites are refused by this node's snapshot, so that callers without one cost the store nothing.
        invite = verify_invite(find_invite(snapshot.documents, body.invite), body.secret, now)
        peer = self._origin(request)
        caller = Caller(f"{INVITE_ACTOR}{invite.id}", now, peer, request.claimed_actor, request.principal)
        secret = make_secret()
        token = Token(
            body.name,
            make_id(),
            invite.scopes,
            (TokenSecret(hash_secret(secret)),),
            invite.role,
            created=now,
            created_by=caller.actor,
        )
        declaration = token_declarations.join(body.invite, body.secret, token, caller)
        declaration(snapshot)  # Raises what can be known already, before anything is signed.
        if body.certificate_request and self._lacks_key:
            return await self._forward(request, "/join", body)
        certificate = self._sign(body.certificate_request, token) if body.certificate_request else ""
        await self._registry.write(declaration)
        addresses = self._addresses()
        result = JoinResult(
            token.name,
            token.role,
            format_token(token.id, secret),
            token.scopes.texts(),
            self._certificate_pem(),
            [*addresses.urls],
            [*addresses.xds],
            certificate,
        )
        return ApiReply(201, wire.encode(result))

    async def certify(self, request: ApiRequest) -> ApiReply:
        body, principal = await request.body(CertificateBody), request.principal
        token = self._access.tokens.find(principal.token_id)
        if token is None or principal.method != "token":
            raise Forbidden(
                f"{principal.name} gets no certificate: the request must have a token of this registry, as "
                "Authorization: Bearer"
            )
        if self._authority is None or self._authority.is_external:
            raise NoAuthority(NO_CERTIFICATES)
        if self._lacks_key:
            return await self._forward(request, "/certificate", body)
        certificate = self._sign(body.certificate_request, token)
        return ApiReply(200, wire.encode(CertificateResult(certificate, self._certificate_pem())))

    @property
    def _lacks_key(self) -> bool:
        """True if another node has the key of the registry's authority."""
        return self._authority is not None and not (self._authority.issues or self._authority.is_external)

    async def _forward(self, request: ApiRequest, path: str, body: JoinBody | CertificateBody) -> ApiReply:
        """Returns the answer of a node that has the key. Raises `NoAuthorityKey` if none answers.

        The whole request is forwarded, and not the request for a certificate alone: so the node that has the key checks
        the proof itself, and a node without the key can't get certificates for others.
        """
        if request.header(wire.FORWARDED_BY_HEADER.lower().encode()) is not None:
            raise NoAuthorityKey(NO_KEY)
        authorization = request.header(b"authorization") or ""
        try:
            reply = await self._others.forward_to_issuer(path, wire.encode(body), authorization, request.peer)
        except NoIssuingNode as error:
            raise NoAuthorityKey(f"{NO_KEY}. It can't be reached from here: {error}") from None
        return ApiReply(reply.status, reply.body, ((b"content-type", reply.content_type.encode("latin-1")), NO_STORE))

    def _origin(self, request: ApiRequest) -> str:
        """Returns the address that a join came from, also if another node of this registry has forwarded it."""
        address = request.header(wire.FORWARDED_FOR_HEADER.lower().encode())
        certificate = request.scope.get("state", {}).get(CLIENT_CERTIFICATE, b"")
        if address is None or not certificate:
            return request.peer
        try:
            sender = self._access.identify(Credentials("", certificate, request.peer))
            self._access.require(sender, Action.FORWARD)
            return str(ip_address(address))
        except (AdsumError, ValueError):
            return request.peer

    def _sign(self, request_pem: str, token: Token) -> str:
        """Returns a certificate of the token, "" if the operator provides the certificates.

        Raises `NoAuthorityKey` if another node has the key, and `Invalid` for a request that can't be signed.
        """
        authority = self._authority
        if authority is None or authority.is_external:
            return ""
        if not authority.issues:
            raise NoAuthorityKey(NO_KEY)
        role = TokenRole.CLIENT if token.role is TokenRole.PLAIN else token.role
        try:
            chain = authority.sign(request_pem.encode(), name=token.name, token_id=token.id, role=role)
        except Invalid as error:
            raise Invalid("certificate_request", error.problem) from None
        return chain.decode()

    async def read_authority(self, _: ApiRequest) -> ApiReply:
        issues = self._authority is not None and self._authority.issues
        return ApiReply(200, wire.encode(AuthorityView(self._certificate_pem(), issues)))

    def _certificate_pem(self) -> str:
        return "" if self._authority is None else self._authority.certificate_pem().decode()

    async def read_caller(self, request: ApiRequest) -> ApiReply:
        principal = request.principal
        scopes: Scopes = principal.scopes
        view = CallerView(principal.name, principal.method, scopes.texts(), request.peer, principal.expires)
        return ApiReply(200, wire.encode(view))
