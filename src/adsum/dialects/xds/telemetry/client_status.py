"""What is known of clients, and what they reject: for people, metrics and logs."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adsum.gateway.resources.resources import ResourceKind

DEPARTED_RETENTION: Final = 600.0
"""Seconds for which a gateway is shown after its last stream ended; then it is forgotten."""
MAX_DEPARTED: Final = 64
"""Gateways without a stream that are shown; past it the one whose stream ended first is forgotten."""
MAX_REMEMBERED_REJECTIONS: Final = 1_024
"""Different rejections that are remembered, to be logged once; the one not heard for longest is forgotten."""

_log = logging.getLogger("adsum.xds")


@dataclass(frozen=True, slots=True)
class KindStatus:
    """One kind of resources at one client: the revision of what was sent and acknowledged last, and what it rejects."""

    sent: int
    acked: int
    rejection: str


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One client. `since` is on the wall clock; `revision` is what it routes by, 0 while that is not known."""

    node: str
    client: str
    peer: str
    since: float
    revision: int
    kinds: Mapping[ResourceKind, KindStatus]

    @property
    def rejections(self) -> dict[str, str]:
        """What it rejects, by kind, in its own words."""
        return {kind_name(kind): each.rejection for kind, each in self.kinds.items() if each.rejection}


class DepartedGateways:
    """Gateways whose last stream ended: they ended, or talk to another node, or hear none and go on as they were told.

    This node can't know which. Time is monotonic seconds.
    """

    def __init__(self) -> None:
        self._departed: OrderedDict[str, tuple[float, StreamStatus]] = OrderedDict()

    def add(self, status: StreamStatus, now: float) -> None:
        """The last stream of a gateway ended."""
        self._departed.pop(status.node, None)
        self._departed[status.node] = now, status
        if len(self._departed) > MAX_DEPARTED:
            self._departed.popitem(last=False)

    def discard(self, node: str) -> None:
        """The gateway has a stream again."""
        self._departed.pop(node, None)

    def recent(self, now: float) -> list[tuple[float, StreamStatus]]:
        """For how many seconds each has been away, and how it stood; the latest first."""
        while self._departed and now - next(iter(self._departed.values()))[0] > DEPARTED_RETENTION:
            self._departed.popitem(last=False)
        return [(now - since, status) for since, status in reversed(self._departed.values())]


class RejectionLog:
    """Counts rejections by kind, and logs each distinct one once."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._heard: OrderedDict[tuple[ResourceKind, str], None] = OrderedDict()

    def add(self, kind: ResourceKind, node: str, reason: str) -> None:
        self.count[kind_name(kind)] += 1
        known = (kind, reason) in self._heard
        self._heard[kind, reason] = None
        self._heard.move_to_end((kind, reason))
        if len(self._heard) > MAX_REMEMBERED_REJECTIONS:
            self._heard.popitem(last=False)
        if not known:
            _log.warning("%s rejects its %s, and goes on with those it had: %s", node, kind_name(kind), reason)


def kind_name(kind: ResourceKind) -> str:
    """A kind as people call it."""
    return f"{kind.name.lower().removesuffix('s')}s"
