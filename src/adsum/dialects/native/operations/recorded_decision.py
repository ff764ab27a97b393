"""A decision that records its latest result."""

from __future__ import annotations

from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import Decision
from adsum.core.catalog.draft import CatalogView
from adsum.core.provenance import Cause


class RecordedDecision:
    """A decision about a registration that records its latest result.

    The registry may call it several times before it commits.
    """

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self.has_changes = False
        """True if the decision changes anything."""
        self.adds_instance = False
        """True if the decision lists an instance that was not listed before."""

    def __call__(self, view: CatalogView) -> list[Change]:
        changes = self._decision(view)
        self.has_changes = bool(changes)
        # Without a look at the catalog: a listing that is replaced has another cause.
        self.adds_instance = any(change.provenance.cause is Cause.REGISTERED for change in changes)
        return changes
