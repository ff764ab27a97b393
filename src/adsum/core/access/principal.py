"""The principal: the party that a request comes from, as far as it has proved that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adsum.core.access.scopes import EVERYTHING, Scopes

ANONYMOUS: Final = "anonymous"
"""The name of callers that prove nothing, and of the token that gives them scopes."""
NAMING_PRINCIPAL: Final = "etcd-naming"
"""The name under which keys in etcd list and show instances, and of the token that limits that."""
REGISTRY_ACTOR: Final = "registry"
"""The actor of changes that no client requested: leases that lapse, checks that change their status."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The party that a request comes from, and its scopes.

    `name` is recorded as the actor of its changes: the name of a token, or the identity in a certificate or a JWT. It
    is also recorded as the owner of what the principal registers.
    """

    name: str
    scopes: Scopes
    is_proven: bool = True
    """False for callers that prove nothing. What they register has no owner."""
    token_id: str = ""
    """The id of the token that it belongs to; `ANONYMOUS` for callers that prove nothing; "" if no token is concerned.
    Its streams end when the token is revoked or changed."""
    secret_id: str = ""
    """Which secret of the token proved it: the beginning of its hash; "" if no secret did. Its streams end with it."""
    expires: float | None = None
    """The time, on the wall clock, from which the proof is no longer valid; None if it has no end."""
    method: str = "token"
    """How it was proved, for people: token, certificate, jwt or none."""

    @property
    def owner(self) -> str:
        """The owner to record for what it registers; "" if it proved nothing."""
        return self.name if self.is_proven else ""

    def actor(self, address: str) -> str:
        """Returns the actor to record for a change that came from the address."""
        return self.name if self.is_proven else f"{self.name}@{address}"


def anonymous(scopes: Scopes, expires: float | None = None) -> Principal:
    """Returns the principal of callers that prove nothing."""
    return Principal(ANONYMOUS, scopes, is_proven=False, token_id=ANONYMOUS, expires=expires, method="none")


REGISTRY: Final = Principal(REGISTRY_ACTOR, EVERYTHING, is_proven=False, method="none")
"""The registry itself. What it lists for others, such as keys in etcd, has no owner."""
