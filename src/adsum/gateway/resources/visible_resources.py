"""The resources of gateways that may read only some services, compiled from the visible part of the catalog.

Gateways with the same visible services share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from adsum.core.access.scopes import NamePatterns
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.catalog.visible_snapshots import VisibleSnapshot, visible_snapshot
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.named_services import visible_intent
from adsum.gateway.resources.compiled_resources import CompiledResources


class VisibleResources(NamedTuple):
    """The resources that are compiled from the visible services, routes and upstreams alone.

    Services that are not visible are absent, as if they were not known. A route is absent as a whole unless all
    services that it names are visible: its targets, also those without weight, and its mirror. Requests that such a
    route would take are then taken by the next route that matches, as if it were not declared.
    """

    catalog: VisibleSnapshot
    source_intent: Intent
    """All routes and upstreams."""
    intent: Intent
    """Those that are visible; the same object until one of them changes."""
    addresses: Mapping[str, str]
    compiled: CompiledResources

    @staticmethod
    def create(visible: NamePatterns, compiled: CompiledResources) -> VisibleResources:
        """Returns the resources before the first snapshot: `compiled` is what gateways get then."""
        return VisibleResources(visible_snapshot(EMPTY_SNAPSHOT, visible), NO_INTENT, NO_INTENT, {}, compiled)

    def advance(self, snapshot: Snapshot, intent: Intent, addresses: Mapping[str, str]) -> VisibleResources:
        """Returns the resources of a later revision.

        `snapshot` and `intent` are the whole ones, and `addresses` those of `CompiledResources.advance`. Costs what
        changed in the visible part, and a check of the name of each other service that changed.
        """
        catalog = self.catalog.advance(snapshot)
        visible = self.intent if intent is self.source_intent else self._visible_intent(intent)
        has_changed = catalog.part.services is not self.catalog.part.services or visible is not self.intent
        compiled = self.compiled
        if has_changed or addresses is not self.addresses:
            compiled = compiled.advance(catalog.part, visible, addresses)
        return VisibleResources(catalog, intent, visible, addresses, compiled)

    def _visible_intent(self, intent: Intent) -> Intent:
        found = visible_intent(intent, self.catalog.visible)
        return self.intent if found == self.intent else found
