"""The gate: decides whether a principal may do an action. Every dialect and transport goes through it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from adsum.core.access.actions import ACCESS_RULES, Action, Subject
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import Right
from adsum.core.errors import Forbidden, InvisibleService, Unauthenticated

HIDDEN_READS: Final = frozenset({Action.READ, Action.WATCH, Action.READ_HISTORY, Action.READ_INTENT})
"""Actions that report an invisible service as one that does not exist."""


class GateVerdict(Enum):
    """The decision of the gate."""

    ALLOWED = "allowed"
    DENIED = "denied"
    INVISIBLE = "invisible"
    """Denied, and the caller may not learn whether the service exists."""


def decide(principal: Principal, action: Action, services: Iterable[str] = ()) -> GateVerdict:
    """Returns whether the principal may do the action on the services that the request names.

    A request that names no service, though its action concerns services, concerns all services that the caller sees:
    it needs the right over at least one service.
    """
    subject, right = ACCESS_RULES[action]
    scopes = principal.scopes
    if subject is Subject.NOTHING:
        return GateVerdict.ALLOWED
    if subject is Subject.CALLER:
        return GateVerdict.ALLOWED if principal.is_proven else GateVerdict.DENIED
    if right is None:
        raise LookupError(f"the action {action.value} has no right in ACCESS_RULES")
    if subject is Subject.REGISTRY:
        return GateVerdict.ALLOWED if scopes.can_everywhere(right) else GateVerdict.DENIED
    patterns = scopes.patterns(right)
    if patterns.is_all:
        return GateVerdict.ALLOWED
    has_names = False
    for service in services:
        has_names = True
        if not patterns.includes(service):
            return GateVerdict.DENIED if scopes.can(Right.READ, service) else GateVerdict.INVISIBLE
    return GateVerdict.ALLOWED if has_names or not patterns.is_empty else GateVerdict.DENIED


def require(principal: Principal, action: Action, services: Iterable[str] = ()) -> None:
    """Returns if the principal may do the action.

    Raises `Unauthenticated` for a caller that has proved nothing, `InvisibleService` for a read of a service that the
    caller may not see, and `Forbidden` for everything else. No message says whether a service or an instance exists.
    """
    names = tuple(services)
    verdict = decide(principal, action, names)
    if verdict is GateVerdict.ALLOWED:
        return
    if not principal.is_proven:
        raise Unauthenticated(f"this needs a token: {_needed(action, names)}", reason="no-credentials")
    if verdict is GateVerdict.INVISIBLE and action in HIDDEN_READS:
        hidden = next(name for name in names if not principal.scopes.can(Right.READ, name))
        raise InvisibleService(hidden, principal.name)
    raise Forbidden(f"{principal.name} may not do this: {_needed(action, names)}")


def _needed(action: Action, services: tuple[str, ...]) -> str:
    """Returns which scope the action needs, as a clause."""
    subject, right = ACCESS_RULES[action]
    if subject is Subject.CALLER or right is None:
        return "it is only for callers that prove who they are"
    if right in (Right.ADMIN, Right.NODE):
        return f"it needs the scope {right.value}"
    if subject is Subject.REGISTRY:
        return f"it needs the scope {right.value}:*"
    if len(services) == 1:
        return f"it needs the scope {right.value}:{services[0]}"
    if services:
        return f"it needs the right {right.value} over every service that it names"
    return f"it needs the right {right.value} over at least one service"
