"""The provenance of a change: its cause and its actor."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Cause(StrEnum):
    """The cause of a change."""

    REGISTERED = "registered"
    REREGISTERED = "reregistered"
    DEREGISTERED = "deregistered"
    LEASE_LAPSED = "lease-lapsed"
    LEASE_RENEWED = "lease-renewed"
    LEASE_EXPIRED = "lease-expired"
    CHECK_PASSING = "check-passing"
    CHECK_WARNING = "check-warning"
    CHECK_CRITICAL = "check-critical"
    DRAINED = "drained"
    MAINTENANCE = "maintenance"
    RESUMED = "resumed"
    OVERRIDE_EXPIRED = "override-expired"
    DECLARED = "declared"
    WITHDRAWN = "withdrawn"
    FORGOTTEN = "forgotten"
    """A service without instances is no longer known."""
    SUPERSEDED = "superseded"
    """Another process registered at the instance's place; the reason names it."""
    UNKNOWN = "unknown"
    """A cause of a later version: one of its nodes wrote to the same etcd."""

    @classmethod
    def _missing_(cls, value: object) -> Cause:  # noqa: ARG003
        return cls.UNKNOWN


class Provenance(Struct, frozen=True, gc=False):
    """The cause and the actor of a change, the actor's reason, and the wall-clock time.

    The actor is who proved to have made the change: the name of a token or of a certificate, `anonymous@ADDRESS`, or a
    part of the registry. `peer` is the address that the request came from; "" if no request caused the change.
    `claimed` is the actor that the request named without proof; "" if it named none. Up to version 0.2 the actor itself
    was only claimed.
    """

    cause: Cause
    actor: str
    reason: str = ""
    at: float = 0.0
    peer: str = ""
    claimed: str = ""
