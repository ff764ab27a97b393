"""An instance with its lease, checks and override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from adsum.core.model import Listing, Outcome, Override, Status, freeze
from adsum.wire.requests import CheckBody
from adsum.wire.responses import ResponseBody
from adsum.wire.views import InstanceView

HIDDEN_HEADER_VALUE: Final = "(hidden)"
"""Replaces the values of a check's headers."""


class CheckView(ResponseBody, frozen=True):
    """A check with its status and its last outcome. `took` is in seconds. A new outcome alone wakes no watch."""

    check: CheckBody
    status: Status
    result: str = ""
    note: str = ""
    took: float = 0.0


class OverrideView(ResponseBody, frozen=True):
    """A declared status with author and reason. `length`: seconds until it ends, null if it does not end by itself."""

    status: Status
    author: str
    reason: str = ""
    length: float | None = None
    at: float = 0.0

    @staticmethod
    def from_override(override: Override) -> OverrideView:
        return OverrideView(override.status, override.author, override.reason, override.length, override.at)


class InstanceDetail(ResponseBody, frozen=True):
    """An instance with its lease, checks and override.

    `evidence` is the status by lease and checks alone, without the override. `peer` is the address of the caller of the
    latest change. `owner` is the principal that registered the instance, "" if it proved nothing.
    """

    epoch: str
    revision: int
    service: str
    instance: InstanceView
    evidence: Status
    lease: str
    grace: float
    ttl: float | None = None
    override: OverrideView | None = None
    checks: list[CheckView] = []
    peer: str = ""
    owner: str = ""
    claimed: str = ""

    @staticmethod
    def from_listing(
        epoch: str, revision: int, listing: Listing, outcomes: Mapping[str, Outcome], *, shows_headers: bool = False
    ) -> InstanceDetail:
        """Returns the detail. `shows_headers`: with the values of the checks' headers, which may be credentials."""
        registration = listing.registration
        checks = []
        for declared in registration.checks:
            check, outcome = declared, outcomes.get(declared.name)
            if not shows_headers:
                check = replace(check, headers=freeze(dict.fromkeys(check.headers, HIDDEN_HEADER_VALUE)))
            view = CheckView(CheckBody.from_check(check), listing.checks[check.name])
            if outcome is not None:
                view = CheckView(view.check, view.status, outcome.result, outcome.note, round(outcome.took, 6))
            checks.append(view)
        return InstanceDetail(
            epoch=epoch,
            revision=revision,
            service=listing.key.service,
            instance=InstanceView.from_listing(listing),
            evidence=listing.evidence,
            lease=listing.lease if registration.ttl is not None else "none",
            grace=registration.grace,
            ttl=registration.ttl,
            override=OverrideView.from_override(listing.override) if listing.override else None,
            checks=checks,
            peer=listing.provenance.peer,
            owner=listing.owner,
            claimed=listing.provenance.claimed,
        )
