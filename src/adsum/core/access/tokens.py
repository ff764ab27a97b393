"""Tokens: secrets that prove who a caller is. The registry keeps only the hash of a secret.

A token is written `adsum_ID_SECRET`. The id finds the record of the token; the secret has 256 random bits. So a plain
hash (SHA-256) of it can't be inverted, and needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from adsum.core import validation
from adsum.core.access.principal import ANONYMOUS, NAMING_PRINCIPAL, REGISTRY_ACTOR, Principal, anonymous
from adsum.core.access.scopes import Scopes
from adsum.core.errors import Invalid, Unauthenticated

TOKEN_PREFIX: Final = "adsum_"
"""The start of every token, by which scanners find leaked ones."""
ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
MAX_SECRETS: Final = 4
"""Valid secrets of one token: the newest, and older ones until their overlap ends. Past it the oldest ends at once."""
SECRET_ID_LENGTH: Final = 16
"""Characters of the hash of a secret that tell the secrets of a token apart."""
MAX_TOKEN_LENGTH: Final = 80
"""Characters of a token. A longer text is no token."""
NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}"
NAME_RULE: Final = "1 to 63 letters, digits and . _ @ -, starting with a letter or digit"
RESERVED_NAMES: Final = frozenset({REGISTRY_ACTOR})
"""Names of actors that are not tokens."""
NAMES_WITHOUT_SECRET: Final = frozenset({ANONYMOUS, NAMING_PRINCIPAL})
"""Names of tokens that nobody sends. Their scopes are those of callers that prove nothing, and of keys in etcd."""
ADMIN_PREFIX: Final = "admin@"
"""The start of the name of the token that a node makes for commands on its own host; the name of the node follows."""
NODE_PREFIX: Final = "node@"
"""The start of the name of the token that a node's own certificate names."""
GATEWAY_PREFIX: Final = "gateway@"
"""The start of the name of the token that a node makes for the gateway in its process."""
NODE_PREFIXES: Final = (ADMIN_PREFIX, NODE_PREFIX, GATEWAY_PREFIX)
"""The starts of the names of tokens that nodes keep. Nobody else may create or rotate such tokens."""

_TOKEN: Final = re.compile(rf"{TOKEN_PREFIX}(?P<id>[0-9a-f]{{16}})_(?P<secret>[A-Za-z0-9_-]{{43}})")
_ID: Final = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(NAME_PATTERN)


class TokenRole(StrEnum):
    """What a token was made for."""

    PLAIN = "plain"
    """A program or a person, by `adsum token create`."""
    CLIENT = "client"
    GATEWAY = "gateway"
    NODE = "node"


class TokenParts(NamedTuple):
    """The two parts of a token."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"TokenParts({self.id})"  # Without the secret: it must not reach a log.


@dataclass(frozen=True, slots=True)
class TokenSecret:
    """The hash of a secret. `expires`: the time on the wall clock at which the secret ends; None: with its token."""

    hash: str
    expires: float | None = None

    def __post_init__(self) -> None:
        if not _HASH.fullmatch(self.hash):
            raise Invalid("hash", "must be SHA-256 of the secret, as 64 hexadecimal digits")

    @property
    def id(self) -> str:
        """The beginning of the hash: it tells the secrets of a token apart, and says nothing about the secret."""
        return self.hash[:SECRET_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Token:
    """The record of a token: its name, its scopes, and the hashes of its secrets, the newest first.

    The token `anonymous` has no secret: its scopes are those of callers that prove nothing.
    """

    name: str
    id: str
    scopes: Scopes
    secrets: Sequence[TokenSecret] = ()
    role: TokenRole = TokenRole.PLAIN
    expires: float | None = None
    created: float = 0.0
    used: float = 0.0
    """The day on which it was used last, as seconds since 1970; 0.0: never."""
    created_by: str = ""
    """The actor who created it."""

    def __post_init__(self) -> None:
        check_token_name("name", self.name)
        if not _ID.fullmatch(self.id):
            raise Invalid("id", f"must be {2 * ID_BYTES} hexadecimal digits, not {validation.quoted(self.id)}")

    def principal(self, secret: TokenSecret | None = None) -> Principal:
        """Returns the principal that a secret of the token proves; without one, that of a certificate of the token."""
        if self.name == ANONYMOUS:
            return anonymous(self.scopes, self.expires)
        if secret is None:
            return Principal(self.name, self.scopes, token_id=self.id, expires=self.expires)
        expires = earlier(self.expires, secret.expires)
        return Principal(self.name, self.scopes, token_id=self.id, secret_id=secret.id, expires=expires)

    def has_expired(self, now: float) -> bool:
        """Returns whether the token has expired by `now`, on the wall clock."""
        return self.expires is not None and self.expires <= now

    def valid_secrets(self, now: float) -> int:
        """Returns the number of secrets that are valid at `now`, on the wall clock."""
        return sum(known.expires is None or known.expires > now for known in self.secrets)

    def rotated(self, secret: str, now: float, overlap: float) -> Token:
        """Returns the token with a new secret. The older secrets end after `overlap` seconds, or earlier."""
        end = now + overlap
        older = [
            TokenSecret(known.hash, end if known.expires is None else min(known.expires, end))
            for known in self.secrets
            if known.expires is None or known.expires > now
        ]
        kept = [known for known in older if known.expires is not None and known.expires > now]
        return replace(self, secrets=(TokenSecret(hash_secret(secret)), *kept)[:MAX_SECRETS])


def check_token_name(field: str, name: str) -> None:
    """Requires the name of a token. Raises `Invalid`."""
    if not _NAME.fullmatch(name):
        raise Invalid(field, f"must be {NAME_RULE}, not {validation.quoted(name)}")
    if name in RESERVED_NAMES:
        raise Invalid(field, f"must not be {name}, the name of the registry itself")


def parse_token(text: str) -> TokenParts:
    """Returns the parts of a token. Raises `Unauthenticated`; its message does not repeat the text."""
    match = _TOKEN.fullmatch(text) if len(text) <= MAX_TOKEN_LENGTH else None
    if match is None:
        raise Unauthenticated("this is no token of this registry: a token begins with adsum_", reason="malformed")
    return TokenParts(*match.groups())


def format_token(id: str, secret: str) -> str:
    """Returns the token as its holder keeps it."""
    return f"{TOKEN_PREFIX}{id}_{secret}"


def hash_secret(secret: str) -> str:
    """Returns the hash of a secret, as the registry keeps it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def verify(token: Token | None, secret: str, now: float) -> TokenSecret:
    """Returns the record of the secret if it is a valid one of the token. `now` is on the wall clock.

    `token` is the record with the id that the caller sent; None if there is none. Raises `Unauthenticated`. Unknown ids
    and wrong secrets get the same message, after the same work.
    """
    known = find_secret(token.secrets if token is not None else (), secret)
    if token is None or known is None:
        raise Unauthenticated("the token is wrong, or was revoked", reason="wrong-credentials")
    if (token.expires is not None and token.expires <= now) or (known.expires is not None and known.expires <= now):
        raise Unauthenticated(f"the token {token.name} has expired: get a new one", reason="expired")
    return known


def find_secret(secrets: Sequence[TokenSecret], secret: str) -> TokenSecret | None:
    """Returns the record of the secret, which may have expired; None if it is another one.

    Hashes are compared in constant time, and all of them are compared. Without any, one comparison is made, so that an
    unknown id takes as long as a wrong secret.
    """
    hashed, found = hash_secret(secret), None
    for known in secrets or _NO_SECRETS:
        if hmac.compare_digest(known.hash, hashed):
            found = known
    return found


_NO_SECRETS: Final = (TokenSecret("0" * 64),)
"""Stands for the secrets of a token that does not exist. No known secret has this hash."""


def earlier(a: float | None, b: float | None) -> float | None:
    """Returns the earlier one of two ends; None stands for none."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)
