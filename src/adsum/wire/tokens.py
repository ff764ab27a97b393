"""Tokens and invites: the documents that the registry stores, and the bodies of the operations about them."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta, Struct

from adsum.core.access.invites import Invite
from adsum.core.access.scopes import MAX_SCOPES, SCOPE_RULE, Scopes, parse_scopes
from adsum.core.access.tokens import NAME_PATTERN, Token, TokenRole, TokenSecret
from adsum.core.errors import AdsumError
from adsum.wire.codec import decode, encode
from adsum.wire.protocol import Reason
from adsum.wire.requests import RequestBody
from adsum.wire.responses import ResponseBody

MAX_PARSED_TOKENS: Final = 20_000
"""Parsed tokens that are cached. Past it the one that was used longest ago is dropped."""
MAX_TOKEN_LIFETIME: Final = 10 * 366 * 86_400.0
"""Seconds for which a token may be valid, at most. A longer time is refused."""
MAX_INVITE_LIFETIME: Final = 90 * 86_400.0
"""Seconds for which an invite may be valid, at most. A longer time is refused: join lines get into files."""
MAX_OVERLAP: Final = 30 * 86_400.0
"""Seconds for which the secret before a rotation may stay valid, at most. A longer time is refused."""
MAX_PEM_LENGTH: Final = 16 * 1024
"""Characters of a certificate or a request for one, at most. A longer one is refused."""

TokenName = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")]
ScopeText = Annotated[str, Meta(max_length=128, description=SCOPE_RULE)]
ScopeTexts = Annotated[list[ScopeText], Meta(max_length=MAX_SCOPES)]
Lifetime = Annotated[float, Meta(gt=0.0, le=MAX_TOKEN_LIFETIME)]
InviteLifetime = Annotated[float, Meta(gt=0.0, le=MAX_INVITE_LIFETIME)]
Pem = Annotated[str, Meta(max_length=MAX_PEM_LENGTH)]
InviteId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
InviteSecret = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$")]


# The documents. A later version must be able to read them, so defaults never change.


class SecretRecord(Struct, frozen=True, omit_defaults=True):
    """The hash of a secret, and the time at which the secret ends."""

    hash: str
    expires: float | None = None


class TokenRecord(Struct, frozen=True, omit_defaults=True):
    """The document of a token, without its name."""

    id: str
    scopes: list[str]
    secrets: list[SecretRecord] = []
    role: TokenRole = TokenRole.PLAIN
    expires: float | None = None
    created: float = 0.0
    used: float = 0.0
    created_by: str = ""


class InviteRecord(Struct, frozen=True, omit_defaults=True):
    """The document of an invite, without its id."""

    role: TokenRole
    scopes: list[str]
    secrets: list[SecretRecord]
    expires: float
    uses_left: int | None = None
    created: float = 0.0


def encode_token(token: Token) -> bytes:
    """Returns the token as a document."""
    return encode(
        TokenRecord(
            token.id,
            token.scopes.texts(),
            [SecretRecord(secret.hash, secret.expires) for secret in token.secrets],
            token.role,
            token.expires,
            token.created,
            token.used,
            token.created_by,
        )
    )


@lru_cache(MAX_PARSED_TOKENS)
def parse_token_document(name: str, body: bytes) -> Token | str:
    """Returns the token of a document. Returns the problem, as a text, if the document can't be read."""
    try:
        record = decode(body, TokenRecord)
        scopes = parse_scopes("scopes", record.scopes)
        return Token(
            name,
            record.id,
            scopes,
            _secrets(record.secrets),
            record.role,
            record.expires,
            record.created,
            record.used,
            record.created_by,
        )
    except AdsumError as error:
        return str(error)


def encode_invite(invite: Invite) -> bytes:
    """Returns the invite as a document."""
    secrets = [SecretRecord(secret.hash, secret.expires) for secret in invite.secrets]
    return encode(
        InviteRecord(invite.role, invite.scopes.texts(), secrets, invite.expires, invite.uses_left, invite.created)
    )


def parse_invite_document(id: str, body: bytes) -> Invite | str:
    """Returns the invite of a document. Returns the problem, as a text, if the document can't be read."""
    try:
        record = decode(body, InviteRecord)
        scopes = parse_scopes("scopes", record.scopes)
        return Invite(
            id, record.role, scopes, _secrets(record.secrets), record.expires, record.uses_left, record.created
        )
    except AdsumError as error:
        return str(error)


def _secrets(records: list[SecretRecord]) -> tuple[TokenSecret, ...]:
    return tuple(TokenSecret(record.hash, record.expires) for record in records)


# The bodies


class TokenBody(RequestBody, frozen=True):
    """A token to create. `lifetime`: seconds until it expires; without it, it does not. `reason` is for the history."""

    name: TokenName
    scopes: ScopeTexts
    lifetime: Lifetime | None = None
    reason: Reason = ""

    def parsed_scopes(self) -> Scopes:
        """Returns the scopes. Raises `Invalid`."""
        return parse_scopes("scopes", self.scopes)


class RotateBody(RequestBody, frozen=True):
    """The rotation of a token. `overlap`: seconds for which the secret before it stays valid."""

    overlap: Annotated[float, Meta(ge=0.0, le=MAX_OVERLAP)] = 86_400.0


class TokenView(ResponseBody, frozen=True):
    """A token without its secrets. Times are on the wall clock; `expires` is null if it does not expire.

    `used` is when it was used last: exact for uses at this node since its start, else the day; null if it never was.
    `secrets` is the number of its valid secrets.
    """

    name: str
    scopes: list[str]
    role: TokenRole = TokenRole.PLAIN
    expires: float | None = None
    created: float = 0.0
    used: float | None = None
    secrets: int = 0
    created_by: str = ""


class TokenList(ResponseBody, frozen=True):
    """All tokens, by name."""

    tokens: list[TokenView]


class IssuedToken(ResponseBody, frozen=True):
    """A token with its secret, which is shown this once. `token` is "" for `anonymous`, which has no secret."""

    token: str
    view: TokenView

    def __repr__(self) -> str:
        return f"IssuedToken({self.view!r})"


class InviteBody(RequestBody, frozen=True):
    """An invite to create. Without `scopes`, hosts that join get the usual ones of the role.

    `lifetime`: seconds until it expires; by default 7 days for clients, and an hour for gateways and nodes. `reason` is
    for the history.
    """

    role: Annotated[str, Meta(pattern="^(client|gateway|node)$")]
    scopes: ScopeTexts | None = None
    lifetime: InviteLifetime | None = None
    reason: Reason = ""


class IssuedInvite(ResponseBody, frozen=True):
    """An invite with its secret, which is shown this once, as the line that `adsum join` reads."""

    line: str
    role: TokenRole
    scopes: list[str]
    expires: float
    single_use: bool

    def __repr__(self) -> str:
        return f"IssuedInvite({self.role.value} {self.scopes} {self.expires})"


class InviteView(ResponseBody, frozen=True):
    """An invite without its secret. Times are on the wall clock.

    `uses_left` is null if any number of hosts may still join by it.
    """

    id: str
    role: TokenRole
    scopes: list[str]
    expires: float
    uses_left: int | None = None
    created: float = 0.0
    created_by: str = ""


class InviteList(ResponseBody, frozen=True):
    """All invites, by id."""

    invites: list[InviteView]


class JoinBody(RequestBody, frozen=True):
    """A request to join: the id and secret of an invite, the name of the joiner, and a request for a certificate."""

    invite: InviteId
    secret: InviteSecret
    name: TokenName
    certificate_request: Pem = ""

    def __repr__(self) -> str:
        return f"JoinBody({self.invite} {self.name})"


class JoinResult(ResponseBody, frozen=True):
    """What a host gets when it joins. `urls` and `xds` are the addresses of the nodes of the registry.

    `certificate` is a chain as PEM; "" if none was requested, or if the operator's own certificates are used.
    `authority` is the certificate of the authority as PEM; "" if it is not known.
    """

    name: str
    role: TokenRole
    token: str
    scopes: list[str]
    authority: str
    urls: list[str]
    xds: list[str] = []
    certificate: str = ""

    def __repr__(self) -> str:
        return f"JoinResult({self.name} {self.role.value} {self.scopes} {self.urls})"


class CertificateBody(RequestBody, frozen=True):
    """A request for a new certificate of the caller."""

    certificate_request: Pem


class CertificateResult(ResponseBody, frozen=True):
    """A certificate as a PEM chain, and the certificate of the authority that signed it."""

    certificate: str
    authority: str


class AuthorityView(ResponseBody, frozen=True):
    """The certificate of the registry's authority, as PEM. `issues`: this node holds its key and signs requests."""

    certificate: str
    issues: bool = False


class CallerView(ResponseBody, frozen=True):
    """The caller, as the registry identifies it. `method` is how it proved that: token, certificate, jwt or none."""

    name: str
    method: str
    scopes: list[str]
    address: str
    expires: float | None = None
