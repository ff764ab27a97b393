"""Everything known of one instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from adsum.core.model import Listing, Outcome, Override, Status, freeze
from adsum.wire.requests import CheckBody
from adsum.wire.responses import ResponseBody
from adsum.wire.views import InstanceView

HIDDEN_HEADER_VALUE: Final = "(hidden)"
"""What stands in place of the value of a check's header."""


class CheckView(ResponseBody, frozen=True):
    """A check and how it stands; the last outcome's text is for people and wakes no watcher."""

    check: CheckBody
    status: Status
    result: str = ""
    note: str = ""
    took: float = 0.0


class OverrideView(ResponseBody, frozen=True):
    """A declared status, by whom and why."""

    status: Status
    author: str
    reason: str = ""
    length: float | None = None
    at: float = 0.0

    @staticmethod
    def from_override(override: Override) -> OverrideView:
        return OverrideView(override.status, override.author, override.reason, override.length, override.at)


class InstanceDetail(ResponseBody, frozen=True):
    """Everything known of one instance.

    `peer` is the address from which its latest change was asked for, "" if the actor is that address or the registry.
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

    @staticmethod
    def from_listing(epoch: str, revision: int, listing: Listing, outcomes: Mapping[str, Outcome]) -> InstanceDetail:
        registration = listing.registration
        checks = []
        for check in registration.checks:
            outcome = outcomes.get(check.name)
            # Headers may hold what proves who asks, and is nobody else's to read.
            hidden = replace(check, headers=freeze(dict.fromkeys(check.headers, HIDDEN_HEADER_VALUE)))
            view = CheckView(CheckBody.from_check(hidden), listing.checks[check.name])
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
        )
