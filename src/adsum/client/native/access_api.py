"""The operations of the native API about access: tokens, invites, joining, certificates and the caller.

Few programs need them, so they are apart from `RegistryApi`.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote

from adsum import wire
from adsum.client.errors import RegistryRefused
from adsum.client.native.request_sender import RequestSender
from adsum.core.errors import RegistrationConflict
from adsum.wire.tokens import (
    CallerView,
    CertificateBody,
    CertificateResult,
    InviteBody,
    InviteList,
    IssuedInvite,
    IssuedToken,
    JoinBody,
    JoinResult,
    RotateBody,
    TokenBody,
    TokenList,
    TokenView,
)

T = TypeVar("T")


class AccessApi:
    """The operations about access of one registry. Every method raises `RegistryUnavailable` if no node answers.

    Tokens need the scope `admin`. Writes go to a node that has just answered, because they must not arrive twice.
    """

    def __init__(self, sender: RequestSender) -> None:
        self._sender = sender

    async def caller(self) -> CallerView:
        """Returns this program as the registry identifies it."""
        return await self._sender.send("GET", "/caller", CallerView)

    async def tokens(self) -> TokenList:
        """Returns every token, by name."""
        return await self._sender.send("GET", "/tokens", TokenList)

    async def token(self, name: str) -> TokenView:
        """Returns one token. Raises `RegistryRefused` (404) if there is none of this name."""
        return await self._sender.send("GET", _token_path(name), TokenView)

    async def create_token(self, body: TokenBody) -> IssuedToken:
        """Creates a token. Raises `RegistryRefused` (409) if there is one of this name."""
        return await self._write("POST", "/tokens", IssuedToken, body)

    async def rotate_token(self, name: str, body: RotateBody) -> IssuedToken:
        """Gives a token a new secret; the one before it stays valid for the overlap."""
        return await self._write("POST", f"{_token_path(name)}/rotate", IssuedToken, body)

    async def revoke_token(self, name: str) -> wire.WriteResult:
        """Revokes a token: from now on it proves nothing, and its streams end."""
        return await self._write("DELETE", _token_path(name), wire.WriteResult)

    async def create_invite(self, body: InviteBody) -> IssuedInvite:
        """Creates an invite, by which hosts join the registry."""
        return await self._write("POST", "/invites", IssuedInvite, body)

    async def invites(self) -> InviteList:
        """Returns every invite, by id."""
        return await self._sender.send("GET", "/invites", InviteList)

    async def revoke_invite(self, id: str) -> wire.WriteResult:
        """Revokes an invite. Hosts that joined by it keep their tokens."""
        return await self._write("DELETE", f"/invites/{quote(id, safe='')}", wire.WriteResult)

    async def join(self, body: JoinBody) -> JoinResult:
        """Joins this host to the registry. Raises `RegistryRefused` (409) if there is a token of this name."""
        return await self._write("POST", "/join", JoinResult, body)

    async def renew_certificate(self, request: str) -> CertificateResult:
        """Returns a new certificate for a request, a PEM, that names the caller."""
        body = CertificateBody(request)
        return await self._write("POST", "/certificate", CertificateResult, body)

    async def _write(self, method: str, path: str, kind: type[T], body: wire.RequestBody | None = None) -> T:
        try:
            return await self._sender.send(method, path, kind, body=body, hedge_delay=None)
        except RegistrationConflict as error:
            raise RegistryRefused(409, str(error)) from None


def _token_path(name: str) -> str:
    return f"/tokens/{quote(name, safe='')}"
