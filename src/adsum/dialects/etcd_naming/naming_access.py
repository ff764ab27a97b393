"""The rights of etcd naming, which acts for programs that can't prove who they are."""

from __future__ import annotations

from typing import Final

from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.core.access import gate
from adsum.core.access.actions import Action
from adsum.core.access.gate import GateVerdict
from adsum.core.access.principal import NAMING_PRINCIPAL, Principal
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES, Scopes
from adsum.core.errors import AdsumError, Forbidden
from adsum.ports import Clock

OPERATION: Final = "etcd_naming"
"""The name of a refused key in metrics and logs."""


class NamingAccess:
    """The rights of etcd naming: all, unless a token named `etcd-naming` is declared, which needs no secret.

    Who may read and write the keys is up to etcd. The scopes of the token limit what is published (`read`) and what
    keys may list (`write`). A token that has expired, or that this version can't read, gives no rights.
    """

    def __init__(self, access: AccessControl, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._principal = Principal(NAMING_PRINCIPAL, EVERYTHING)

    @property
    def principal(self) -> Principal:
        """The principal with its rights now; the same object until these change."""
        scopes = self._scopes()
        if scopes != self._principal.scopes:
            self._principal = Principal(NAMING_PRINCIPAL, scopes)
        return self._principal

    def _scopes(self) -> Scopes:
        self._access.refresh()
        tokens = self._access.tokens
        token = tokens.named(NAMING_PRINCIPAL)
        if token is None:
            return NO_SCOPES if NAMING_PRINCIPAL in tokens.unreadable else EVERYTHING
        has_expired = token.expires is not None and token.expires <= self._clock.wall()
        return NO_SCOPES if has_expired else token.scopes

    def record_refusal(self, error: AdsumError) -> None:
        """Counts the refusal of a key, and logs it within bounds."""
        self._access.record_refusal(OPERATION, error, Credentials(address="etcd"))


def may_publish(principal: Principal, service: str) -> bool:
    """Returns whether the usable instances of the service may be published as keys."""
    return gate.decide(principal, Action.READ, (service,)) is GateVerdict.ALLOWED


def listing_refusal(principal: Principal, service: str) -> Forbidden | None:
    """Returns why keys may not list instances of the service; None if they may."""
    if gate.decide(principal, Action.REGISTER, (service,)) is GateVerdict.ALLOWED:
        return None
    return Forbidden(f"the token {NAMING_PRINCIPAL} lacks the scope write:{service}, so its keys are not listed")
