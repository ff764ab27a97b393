"""Rules that give scopes to callers that another authority identifies, by certificates or the claims of JWTs. Pure.

`IDENTITY=SCOPE[,SCOPE…]` concerns certificates, `CLAIM=VALUE=SCOPE[,SCOPE…]` JWTs. `*` in the identity or the value
stands for any text, also for none. The scopes of several rules add up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from adsum.core.access.scopes import Scope, Scopes, parse_scopes
from adsum.core.errors import Invalid
from adsum.core.validation import MAX_TEXT_LENGTH, quoted

MAX_RULES: Final = 256
"""Rules of one setting. More are refused."""
MAX_PATTERN_LENGTH: Final = 2_048
"""Characters of a pattern, at most: a SPIFFE id has at most as many. A longer one is refused."""
MAX_IDENTITY_LENGTH: Final = 2_048
"""Characters of an identity in a certificate or a JWT. A longer one is refused."""
WORD_CLAIMS: Final = frozenset({"scope", "scp"})
"""Claims of a JWT whose text is a list of words."""
SPIFFE_SCHEME: Final = "spiffe://"
COMMON_NAME_PREFIX: Final = "CN="
"""Begins the identity of a certificate without a SPIFFE id; its common name follows."""
CERTIFICATE_RULE: Final = "IDENTITY=SCOPE[,SCOPE…], such as spiffe://example.org/team-a/*=write:team-a-*"
CLAIM_RULE: Final = "CLAIM=VALUE=SCOPE[,SCOPE…], such as groups=team-a=write:team-a-*,read:*"

_OWN_DOMAIN: Final = re.compile(r"spiffe://adsum(?![a-z0-9._-])", re.IGNORECASE)
_HASHED_LENGTH: Final = 32
"""Hexadecimal digits of the hash that ends a shortened name."""


class IdentityPattern:
    """A text in which `*` stands for any text. It matches in linear time for each `*`."""

    __slots__ = ("_head", "_middle", "_tail", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        head, *rest = text.split("*")
        self._head: Final = head
        self._middle: Final = tuple(part for part in rest[:-1] if part)
        self._tail: Final = rest[-1] if rest else None

    def matches(self, value: str) -> bool:
        """Returns whether the whole value matches."""
        if self._tail is None:
            return value == self._head
        at, end = len(self._head), len(value) - len(self._tail)
        if at > end or not value.startswith(self._head) or not value.endswith(self._tail):
            return False
        for part in self._middle:
            # The leftmost place is as good as any: it leaves the most room for the parts that follow.
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    def __repr__(self) -> str:
        return f"IdentityPattern({self.text!r})"


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """The scopes of certificates whose identity matches a pattern."""

    pattern: IdentityPattern
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """The scopes of JWTs that have a claim with a value that matches a pattern."""

    claim: str
    pattern: IdentityPattern
    scopes: Scopes


def parse_certificate_rules(field: str, texts: Sequence[str]) -> tuple[CertificateRule, ...]:
    """Returns the rules in the texts. Raises `Invalid`."""
    _check_count(field, texts)
    rules = []
    for number, text in enumerate(texts):
        where = f"{field}[{number}]"
        identity, equals, scopes = text.rpartition("=")
        if not (identity and equals):
            raise Invalid(where, f"must be {CERTIFICATE_RULE}, not {quoted(text)}")
        _check_identity(where, identity)
        rules.append(CertificateRule(IdentityPattern(identity), _parse_scopes(where, scopes)))
    return tuple(rules)


def _check_identity(field: str, identity: str) -> None:
    _check_pattern(field, identity)
    domain = identity.removeprefix(SPIFFE_SCHEME).partition("/")[0]
    if is_own_spiffe_id(identity):
        raise Invalid(field, "must not begin with spiffe://adsum: only this registry names its tokens so")
    if identity != "*" and not identity.startswith((SPIFFE_SCHEME, COMMON_NAME_PREFIX)):
        raise Invalid(
            field,
            f"must begin with spiffe://TRUST-DOMAIN or with CN=, or be * for every certificate: {quoted(identity)}",
        )
    if identity.startswith(SPIFFE_SCHEME) and (not domain or "*" in domain):
        raise Invalid(field, f"must name the whole trust domain, without *, not {quoted(identity)}")


def parse_claim_rules(field: str, texts: Sequence[str]) -> tuple[ClaimRule, ...]:
    """Returns the rules in the texts. Raises `Invalid`."""
    _check_count(field, texts)
    rules = []
    for number, text in enumerate(texts):
        where = f"{field}[{number}]"
        claim, _, rest = text.partition("=")
        value, equals, scopes = rest.rpartition("=")
        if not (claim and value and equals):
            raise Invalid(where, f"must be {CLAIM_RULE}, not {quoted(text)}")
        _check_pattern(where, claim)
        _check_pattern(where, value)
        rules.append(ClaimRule(claim, IdentityPattern(value), _parse_scopes(where, scopes)))
    return tuple(rules)


def certificate_scopes(rules: Iterable[CertificateRule], identity: str) -> Scopes:
    """Returns the scopes that the rules give to the identity of a certificate."""
    return _union(rule.scopes for rule in rules if rule.pattern.matches(identity))


def claim_scopes(rules: Iterable[ClaimRule], claims: Mapping[str, object]) -> Scopes:
    """Returns the scopes that the rules give to the claims of a JWT."""
    return _union(
        rule.scopes for rule in rules if any(rule.pattern.matches(value) for value in claim_values(claims, rule.claim))
    )


def claim_values(claims: Mapping[str, object], name: str) -> list[str]:
    """Returns the values of a claim as texts: the members of a list, or the whole text.

    The words of the claims `scope` and `scp` are values, too (RFC 8693, 4.2). The words of other claims are not: people
    choose parts of their names. `a.b` names the claim `a.b`, or else the member `b` of the claim `a`. Other
    values, such as mappings, are left out.
    """
    found: object = claims
    if name in claims:
        found = claims[name]
    else:
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return [found, *(word for word in found.split() if word != found)] if name in WORD_CLAIMS else [found]
    values = found if isinstance(found, list) else [found]
    return [text for value in values if (text := _claim_text(value)) is not None]


def _claim_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def is_own_spiffe_id(uri: str) -> bool:
    """Returns whether the URI is in the trust domain of Adsum, which no other authority may name."""
    return _OWN_DOMAIN.match(uri) is not None


def principal_name(identity: str) -> str:
    """Returns the identity as the name of a principal. Raises `Invalid`.

    Names are recorded as authors, so they are shorter than `MAX_TEXT_LENGTH`. A longer identity is cut, and ends with a
    part of its hash: such a name has exactly that length, so it is never the name of another identity.
    """
    if not 0 < len(identity) <= MAX_IDENTITY_LENGTH or not identity.isprintable():
        raise Invalid("identity", f"must be 1 to {MAX_IDENTITY_LENGTH} printable characters")
    if len(identity) < MAX_TEXT_LENGTH:
        return identity
    ending = sha256(identity.encode()).hexdigest()[:_HASHED_LENGTH]
    return f"{identity[: MAX_TEXT_LENGTH - _HASHED_LENGTH - 1]}~{ending}"


def _check_count(field: str, texts: Sequence[str]) -> None:
    if len(texts) > MAX_RULES:
        raise Invalid(field, f"must be at most {MAX_RULES} rules, not {len(texts)}")


def _check_pattern(field: str, pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_LENGTH or not pattern.isprintable():
        raise Invalid(field, f"must have a name or pattern of at most {MAX_PATTERN_LENGTH} printable characters")


def _parse_scopes(field: str, text: str) -> Scopes:
    return parse_scopes(field, [scope.strip() for scope in text.split(",")])


def _union(sets: Iterable[Scopes]) -> Scopes:
    scopes: set[Scope] = set()
    for found in sets:
        scopes.update(found.scopes)
    return Scopes(scopes)
