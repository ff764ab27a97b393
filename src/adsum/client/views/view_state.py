"""From groups to endpoints: the rules by which a view never goes backwards and never forgets by accident.

- Within one epoch, a group before our revision says nothing: a registry node that lags, or an old cache.
- Another epoch is accepted only whole.
- **Settling**: another epoch means that the registry lost its state or is another one. Instances come back by
  themselves within seconds, so what is missing in the new epoch stays shown for `SETTLING_TIME` seconds after it began,
  unless the new epoch itself says that it left. Then the new epoch alone counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.core.errors import AdsumError
from adsum.core.model import Endpoint

SETTLING_TIME: Final = 30.0
"""Seconds for which endpoints of the epoch before stay shown; registrars ask after themselves about every 10 s."""


class UpdateEffect(StrEnum):
    """What a group did to the view."""

    CHANGED = "changed"
    REFRESHED = "fresh"
    BEHIND = "behind"


class RevisionGap(AdsumError):
    """A group does not join on to what is known: the whole is needed."""


class ViewState:
    """What is known of one service, and up to where."""

    def __init__(self, position: ViewPosition | None = None, endpoints: Iterable[Endpoint] = ()) -> None:
        """Nothing known, or a view of earlier."""
        self.position = position
        self._known = {endpoint.id: endpoint for endpoint in endpoints}
        self._kept: dict[str, Endpoint] = {}
        self._settles_at: float | None = None
        self._gap = False

    @property
    def resume_from(self) -> ViewPosition | None:
        """What need not be told again; None: tell the whole."""
        return None if self._gap else self.position

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What is shown, by id: what is known and what is kept while settling."""
        shown = {**self._kept, **self._known}
        return tuple(shown[id] for id in sorted(shown))

    @property
    def is_settling(self) -> bool:
        """Whether endpoints of the epoch before are still shown."""
        return self._settles_at is not None

    def apply(self, update: ServiceUpdate, now: float) -> UpdateEffect:
        """Apply a group. Raises `RevisionGap` if it does not join on: ask again, from `resume_from`. What is shown stays."""
        ours, theirs = self.position, update.position
        same = ours is not None and ours.epoch == theirs.epoch
        if same and ours is not None and theirs.revision < ours.revision:
            return UpdateEffect.BEHIND
        if update.full:
            changed = self._replace(update, same, now)
        elif same and ours is not None and update.since <= ours.revision:
            changed = self._amend(update)
        else:
            self._gap = True
            raise RevisionGap(f"changes since {update.since} of epoch {theirs.epoch} don't join on to {ours}")
        self.position, self._gap = theirs, False
        return UpdateEffect.CHANGED if changed else UpdateEffect.REFRESHED

    def next_deadline(self) -> float | None:
        """When to tick; None while nothing settles."""
        return self._settles_at

    def tick(self, now: float) -> bool:
        """Whether what is shown has changed because the settling time is over."""
        if self._settles_at is None or now < self._settles_at:
            return False
        self._settles_at = None
        kept, self._kept = self._kept, {}
        return bool(kept)

    def _replace(self, group: ServiceUpdate, same: bool, now: float) -> bool:
        before = {**self._kept, **self._known}
        first = self.position is None
        if not same and not first:
            self._kept, self._settles_at = dict(before), now + SETTLING_TIME
        self._known = dict(group.changed)
        self._drop_kept(group)
        return first or before != {**self._kept, **self._known}

    def _amend(self, group: ServiceUpdate) -> bool:
        changed = False
        for id, endpoint in group.changed.items():
            changed = changed or self._known.get(id) != endpoint
            self._known[id] = endpoint
        for id in group.removed:
            changed = (self._known.pop(id, None) is not None) or id in self._kept or changed
        self._drop_kept(group)
        return changed

    def _drop_kept(self, group: ServiceUpdate) -> None:
        """Those that the new epoch speaks of need not be kept."""
        for id in [id for id in self._kept if id in group.changed or id in group.removed]:
            del self._kept[id]
        if not self._kept:
            self._settles_at = None
