"""Scopes: the rights of a caller over services, by patterns of service names.

A scope is written `RIGHT:PATTERN`: `read:orders`, `write:team-a-*`, `operate:*`. The rights `admin` and `node` concern
the whole registry and are written without a pattern. Each right includes those before it: who may write a service may
also read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from adsum.core.errors import Invalid
from adsum.core.validation import NAME_PATTERN, NAME_RULE, quoted

MAX_SCOPES: Final = 64
"""Scopes of one token. A token with more is refused."""
MAX_INTERNED_PATTERNS: Final = 1_024
"""Different sets of patterns that principals share. Past it those used longest ago are no longer shared."""

_PATTERN: Final = re.compile(rf"\*|{NAME_PATTERN}|[a-z0-9][a-z0-9-]{{0,61}}\*")


class Right(StrEnum):
    """What a caller may do."""

    READ = "read"
    """See a service and watch it."""
    WRITE = "write"
    """Register instances, and change those that this caller registered."""
    OPERATE = "operate"
    """Change the instances of others, and declare routes and upstreams that name the service."""
    ADMIN = "admin"
    """Manage tokens, and do everything else."""
    NODE = "node"
    """Be a node of this registry: forward renewals, and query the consumers of another node."""


RIGHTS_OVER_SERVICES: Final = (Right.READ, Right.WRITE, Right.OPERATE)
"""The rights that a pattern limits, from the weakest to the strongest."""


class NamePatterns(NamedTuple):
    """A set of service names: all of them, or exact names and prefixes. `intern_patterns` makes it."""

    is_all: bool = False
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def includes(self, name: str) -> bool:
        """Returns whether the set includes the name."""
        return self.is_all or name in self.names or name.startswith(self.prefixes)

    @property
    def digest(self) -> str:
        """A short text that identifies the set: the same in every process, and another one for another set."""
        values = self.is_all, sorted(self.names), self.prefixes
        return blake2b(repr(values).encode(), digest_size=8).hexdigest()

    @property
    def is_empty(self) -> bool:
        """True if the set includes no name."""
        return not (self.is_all or self.names or self.prefixes)


ALL_NAMES: Final = NamePatterns(is_all=True)
NO_NAMES: Final = NamePatterns()


@lru_cache(MAX_INTERNED_PATTERNS)
def intern_patterns(patterns: frozenset[str]) -> NamePatterns:
    """Returns the set of the names that match any of the patterns. Equal sets are one object."""
    if "*" in patterns:
        return ALL_NAMES
    shortest: list[str] = []
    for prefix in sorted(pattern[:-1] for pattern in patterns if pattern.endswith("*")):
        # A prefix sorts directly behind those that it begins with, so the last one kept is the only candidate.
        if not (shortest and prefix.startswith(shortest[-1])):
            shortest.append(prefix)
    prefixes = tuple(shortest)
    names = frozenset(p for p in patterns if not p.endswith("*") and not p.startswith(prefixes))
    return _share(names, prefixes)


@lru_cache(MAX_INTERNED_PATTERNS)
def _share(names: frozenset[str], prefixes: tuple[str, ...]) -> NamePatterns:
    """Returns the set. Different patterns may mean the same names: `a*` and `a*`, `ab`."""
    return NamePatterns(names=names, prefixes=prefixes) if names or prefixes else NO_NAMES


class Scope(NamedTuple):
    """A right over the services whose names match a pattern; the pattern is "" for `admin` and `node`."""

    right: Right
    pattern: str = ""

    def __str__(self) -> str:
        return f"{self.right.value}:{self.pattern}" if self.pattern else self.right.value

    @staticmethod
    def parse(field: str, text: str) -> Scope:
        """Returns the scope in a text. Raises `Invalid`."""
        name, colon, pattern = text.partition(":")
        try:
            right = Right(name)
        except ValueError:
            raise Invalid(field, f"must be {SCOPE_RULE}, not {quoted(text)}") from None
        if right not in RIGHTS_OVER_SERVICES:
            if colon:
                raise Invalid(field, f"{right.value} concerns the whole registry and takes no pattern")
            return Scope(right)
        if not _PATTERN.fullmatch(pattern):
            raise Invalid(
                field, f"must name a service ({NAME_RULE}), a prefix such as team-a-*, or *, not {quoted(pattern)}"
            )
        return Scope(right, pattern)


SCOPE_RULE: Final = "RIGHT:PATTERN, such as read:orders, write:team-a-* or operate:*; or admin"
"""A description of a scope, for errors and help."""


class Scopes:
    """An immutable set of scopes. Two sets with the same scopes are equal."""

    __slots__ = ("_by_right", "is_admin", "is_node", "scopes", "visible")

    def __init__(self, scopes: Iterable[Scope] = ()) -> None:
        self.scopes: Final = tuple(sorted(set(scopes)))
        """The scopes, sorted."""
        rights = {scope.right for scope in self.scopes}
        self.is_admin: Final = Right.ADMIN in rights
        self.is_node: Final = Right.NODE in rights or self.is_admin
        self._by_right: Final = {right: self._patterns(right) for right in RIGHTS_OVER_SERVICES}
        self.visible: Final = self._by_right[Right.READ]
        """The services that may be read."""

    def _patterns(self, right: Right) -> NamePatterns:
        if self.is_admin:
            return ALL_NAMES
        including = RIGHTS_OVER_SERVICES[RIGHTS_OVER_SERVICES.index(right) :]
        return intern_patterns(frozenset(scope.pattern for scope in self.scopes if scope.right in including))

    def patterns(self, right: Right) -> NamePatterns:
        """Returns the services over which these scopes give the right: read, write or operate."""
        return self._by_right[right]

    def can(self, right: Right, service: str) -> bool:
        """Returns whether these scopes give the right (read, write or operate) over the service."""
        return self._by_right[right].includes(service)

    def can_everywhere(self, right: Right) -> bool:
        """Returns whether these scopes give the right over every service; for `admin` and `node`, whether they do."""
        if right is Right.ADMIN:
            return self.is_admin
        return self.is_node if right is Right.NODE else self._by_right[right].is_all

    def includes(self, other: Scopes) -> bool:
        """Returns whether these scopes allow at least everything that the other ones allow."""
        return all(self._includes(scope) for scope in other.scopes)

    def _includes(self, scope: Scope) -> bool:
        if scope.right not in RIGHTS_OVER_SERVICES:
            return self.can_everywhere(scope.right)
        own = self._by_right[scope.right]
        if own.is_all or not scope.pattern.endswith("*"):
            return own.is_all or own.includes(scope.pattern)
        return scope.pattern[:-1].startswith(own.prefixes) and bool(own.prefixes)

    def texts(self) -> list[str]:
        """Returns the scopes as they are written."""
        return [str(scope) for scope in self.scopes]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scopes) and self.scopes == other.scopes

    def __hash__(self) -> int:
        return hash(self.scopes)

    def __repr__(self) -> str:
        return f"Scopes({' '.join(self.texts())})"


def parse_scopes(field: str, texts: Iterable[str]) -> Scopes:
    """Returns the scopes in the texts. Raises `Invalid`."""
    values = list(texts)
    if len(values) > MAX_SCOPES:
        raise Invalid(field, f"must be at most {MAX_SCOPES} scopes, not {len(values)}")
    return Scopes(Scope.parse(f"{field}[{n}]", text) for n, text in enumerate(values))


NO_SCOPES: Final = Scopes()
EVERYTHING: Final = Scopes([Scope(Right.ADMIN), Scope(Right.NODE)])
