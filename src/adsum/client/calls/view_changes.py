"""The changes from one view of a service to the next, as a channel processes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from adsum.core.endpoint_changes import endpoint_changes
from adsum.core.model import Endpoint
from adsum.core.selection import USABLE_STATUSES


@dataclass(frozen=True, slots=True)
class ViewChanges:
    """The changes between two views, whose endpoints are in the order of ids. All but `new` are ids."""

    new: list[Endpoint] = field(default_factory=list)
    """The endpoints that came or changed."""
    came: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    """Ids that belong to another process than before."""
    usable: set[str] = field(default_factory=set)
    """Ids that are usable and were not, or whose usable process replaced another one."""
    unusable: set[str] = field(default_factory=set)
    """Ids that were usable and are not any more."""


def view_changes(before: Sequence[Endpoint], after: Sequence[Endpoint]) -> ViewChanges:
    """Returns what changed from the endpoints of one view to those of the next."""
    changes = ViewChanges()
    for _, old, new in endpoint_changes(before, after):
        was_usable = old is not None and old.status in USABLE_STATUSES
        if new is None:
            if old is not None:
                changes.gone.add(old.id)
                if was_usable:
                    changes.unusable.add(old.id)
            continue
        changes.new.append(new)
        is_replaced = old is not None and old.identity != new.identity
        if old is None:
            changes.came.add(new.id)
        if is_replaced:
            changes.replaced.add(new.id)
        is_usable = new.status in USABLE_STATUSES
        if is_usable and (is_replaced or not was_usable):
            changes.usable.add(new.id)
        if was_usable and not is_usable:
            changes.unusable.add(new.id)
    return changes
