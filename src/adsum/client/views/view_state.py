"""The state of a view: it applies updates so that the view never goes backwards and never loses endpoints by accident.

- Within an epoch, an update with a lower revision changes nothing: its node lags behind.
- Another epoch is accepted only as a full update.
- **Settling**: another epoch means that the registry lost its state, or is another registry. Instances register again
  within seconds. So endpoints that the new epoch does not list stay in the view for `SETTLING_TIME`, unless they are
  removed in the new epoch. After that only the new epoch counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final

from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.core.errors import AdsumError
from adsum.core.model import Endpoint

SETTLING_TIME: Final = 30.0
"""Seconds for which endpoints of the epoch before stay in the view. Registrars renew at least about every 10 s, and so
notice a new epoch in time."""

MAX_PLACED: Final = 64
"""Endpoints that are put at their places one by one, in a view without any; one more for each 64 endpoints of the view.
With more, all are sorted again."""


class UpdateEffect(StrEnum):
    """The effect of an update on the view."""

    CHANGED = "changed"
    REFRESHED = "refreshed"
    """The endpoints are the same, and the view is fresh again."""
    BEHIND = "behind"
    """The update is older than the view, and was ignored."""


class RevisionGap(AdsumError):
    """An update starts after the current position, so changes are missing: a full update is needed."""


class ViewState:
    """The endpoints of one service, and the position up to which they are known."""

    def __init__(self, position: ViewPosition | None = None, endpoints: Iterable[Endpoint] = ()) -> None:
        """Empty, or from a cached view."""
        self.position = position
        self._known = {endpoint.id: endpoint for endpoint in endpoints}
        self._kept: dict[str, Endpoint] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._sort_endpoints()
        self._settles_at: float | None = None
        self._gap = False

    @property
    def resume_from(self) -> ViewPosition | None:
        """The position from which the source may send changes; None: it must send a full update."""
        return None if self._gap else self.position

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints of the view, ordered by id: those of this epoch, and those kept while settling."""
        return self._endpoints

    @property
    def is_settling(self) -> bool:
        """True if endpoints of the epoch before are still in the view."""
        return self._settles_at is not None

    def apply(self, update: ServiceUpdate, now: float) -> UpdateEffect:
        """Applies an update. Raises `RevisionGap` if changes are missing; then the view stays as it is.

        After a gap `resume_from` is None until a full update comes.
        """
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
            raise RevisionGap(f"changes since {update.since} of epoch {theirs.epoch} do not follow {ours}")
        self.position, self._gap = theirs, False
        return UpdateEffect.CHANGED if changed else UpdateEffect.REFRESHED

    def next_deadline(self) -> float | None:
        """Returns the time of the next `tick`; None if the view is not settling."""
        return self._settles_at

    def tick(self, now: float) -> bool:
        """Ends the settling time if it is over. Returns whether the view changed."""
        if self._settles_at is None or now < self._settles_at:
            return False
        self._settles_at = None
        kept, self._kept = self._kept, {}
        self._update_endpoints(kept)
        return bool(kept)

    def _replace(self, update: ServiceUpdate, same: bool, now: float) -> bool:
        before, first = self._endpoints, self.position is None
        if not same and not first:
            self._kept, self._settles_at = {endpoint.id: endpoint for endpoint in before}, now + SETTLING_TIME
        known = self._known
        # Equal endpoints stay the same objects, so that the next comparison is quick.
        self._known = {id: known[id] if known.get(id) == new else new for id, new in update.changed.items()}
        self._drop_kept(update)
        self._sort_endpoints()
        return first or before != self._endpoints

    def _amend(self, update: ServiceUpdate) -> bool:
        changed = False
        for id, endpoint in update.changed.items():
            changed = changed or self._known.get(id) != endpoint
            self._known[id] = endpoint
        for id in update.removed:
            changed = (self._known.pop(id, None) is not None) or id in self._kept or changed
        self._drop_kept(update)
        if changed:
            self._update_endpoints({*update.changed, *update.removed})
        return changed

    def _update_endpoints(self, ids: Collection[str]) -> None:
        """Puts the endpoints with these ids at their places, or removes them."""
        if len(ids) > MAX_PLACED + len(self._endpoints) // MAX_PLACED:
            self._sort_endpoints()
            return
        endpoints = list(self._endpoints)
        for id in ids:
            endpoint = self._known.get(id) or self._kept.get(id)
            place = bisect_left(endpoints, id, key=_id)
            is_known = place < len(endpoints) and endpoints[place].id == id
            endpoints[place : place + is_known] = () if endpoint is None else (endpoint,)
        self._endpoints = tuple(endpoints)

    def _sort_endpoints(self) -> None:
        endpoints = {**self._kept, **self._known}
        self._endpoints = tuple(map(endpoints.__getitem__, sorted(endpoints)))

    def _drop_kept(self, update: ServiceUpdate) -> None:
        """Drops the kept endpoints that the update changes or removes."""
        for id in [id for id in self._kept if id in update.changed or id in update.removed]:
            del self._kept[id]
        if not self._kept:
            self._settles_at = None


def _id(endpoint: Endpoint) -> str:
    return endpoint.instance.id
