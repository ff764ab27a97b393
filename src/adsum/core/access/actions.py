"""Actions: everything that a request may do, and the right that each needs.

Each operation of a dialect is one action.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core.access.scopes import Right


class Action(StrEnum):
    """What a request does, whatever its dialect."""

    # About services
    READ = "read"
    LIST = "list"
    WATCH = "watch"
    READ_HISTORY = "read-history"
    REGISTER = "register"
    RENEW = "renew"
    DEREGISTER = "deregister"
    OVERRIDE = "override"
    RESUME = "resume"
    FORGET = "forget"
    # About routes and upstreams
    READ_INTENT = "read-intent"
    DECLARE = "declare"
    REPLACE_INTENT = "replace-intent"
    READ_EDITS = "read-edits"
    # Of consumers and gateways
    ACKNOWLEDGE = "acknowledge"
    REPORT = "report"
    # About the registry
    PROBE = "probe"
    READ_NODE = "read-node"
    FORWARD = "forward"
    MANAGE_TOKENS = "manage-tokens"
    JOIN = "join"
    IDENTIFY = "identify"
    CERTIFY = "certify"


class Subject(Enum):
    """What an action concerns, so that the gate knows over what the right is needed."""

    NOTHING = "nothing"
    """Nothing that belongs to anyone: everybody may do it."""
    SERVICES = "services"
    """The services that the request names. The right is needed over each of them."""
    OWN_INSTANCES = "own instances"
    """Instances of the named services. The right suffices for instances that the caller registered; for others it needs
    `operate` (`ownership`)."""
    VISIBLE = "visible"
    """Whatever the caller may see: the answer is limited to that. The right is needed over at least one service."""
    REGISTRY = "registry"
    """The registry as a whole. The right is needed over every service."""
    CALLER = "caller"
    """The caller itself, who must have proved who it is."""


class AccessRule(NamedTuple):
    """The right that an action needs, and over what."""

    subject: Subject
    right: Right | None = None


ACCESS_RULES: Final[Mapping[Action, AccessRule]] = MappingProxyType(
    {
        Action.READ: AccessRule(Subject.SERVICES, Right.READ),
        Action.LIST: AccessRule(Subject.VISIBLE, Right.READ),
        Action.WATCH: AccessRule(Subject.SERVICES, Right.READ),
        Action.READ_HISTORY: AccessRule(Subject.VISIBLE, Right.READ),
        Action.REGISTER: AccessRule(Subject.OWN_INSTANCES, Right.WRITE),
        Action.RENEW: AccessRule(Subject.OWN_INSTANCES, Right.WRITE),
        Action.DEREGISTER: AccessRule(Subject.OWN_INSTANCES, Right.WRITE),
        Action.OVERRIDE: AccessRule(Subject.OWN_INSTANCES, Right.WRITE),
        Action.RESUME: AccessRule(Subject.OWN_INSTANCES, Right.WRITE),
        Action.FORGET: AccessRule(Subject.SERVICES, Right.OPERATE),
        Action.READ_INTENT: AccessRule(Subject.VISIBLE, Right.READ),
        Action.DECLARE: AccessRule(Subject.SERVICES, Right.OPERATE),
        Action.REPLACE_INTENT: AccessRule(Subject.REGISTRY, Right.OPERATE),
        Action.READ_EDITS: AccessRule(Subject.REGISTRY, Right.READ),
        Action.ACKNOWLEDGE: AccessRule(Subject.VISIBLE, Right.READ),
        Action.REPORT: AccessRule(Subject.VISIBLE, Right.READ),
        Action.PROBE: AccessRule(Subject.NOTHING),
        Action.READ_NODE: AccessRule(Subject.REGISTRY, Right.READ),
        Action.FORWARD: AccessRule(Subject.REGISTRY, Right.NODE),
        Action.MANAGE_TOKENS: AccessRule(Subject.REGISTRY, Right.ADMIN),
        Action.JOIN: AccessRule(Subject.NOTHING),
        Action.IDENTIFY: AccessRule(Subject.NOTHING),
        Action.CERTIFY: AccessRule(Subject.CALLER),
    }
)
"""Action → the right that it needs. An action without a rule is an error when the program starts."""

if missing := set(Action) - ACCESS_RULES.keys():
    raise LookupError(f"actions without a rule in ACCESS_RULES: {', '.join(sorted(missing))}")
