"""The status of xDS clients, and what they reject: for the node's status, metrics and logs."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adsum.gateway.resources.resources import ResourceKind

DEPARTED_RETENTION: Final = 600.0
"""Seconds for which a gateway is shown after its last stream has ended; then it is forgotten."""
MAX_DEPARTED: Final = 64
"""Gateways without a stream that are shown; past it the one whose stream ended first is forgotten."""
MAX_REMEMBERED_REJECTIONS: Final = 1_024
"""Different rejections that are remembered, so that each is logged once; past it the one that is the longest ago is
forgotten."""

_log = logging.getLogger("adsum.xds")


@dataclass(frozen=True, slots=True)
class KindStatus:
    """One kind of resources at one client: the revisions that were sent and acknowledged last, and what is rejected.

    `rejection` is the client's reason, "" if it rejects nothing.
    """

    sent: int
    acked: int
    rejection: str


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The status of one client's stream.

    `node` is the node id, `client` the program and version, `peer` IP:PORT, `since` the wall-clock seconds at which it
    connected. `revision` is the one by which the client routes, 0 while that is unknown.
    """

    node: str
    client: str
    peer: str
    since: float
    revision: int
    kinds: Mapping[ResourceKind, KindStatus]

    @property
    def rejections(self) -> dict[str, str]:
        """The client's reasons for what it rejects, by the name of the kind."""
        return {kind_name(kind): status.rejection for kind, status in self.kinds.items() if status.rejection}


class DepartedGateways:
    """Gateways whose last stream to this node has ended. Time is monotonic seconds.

    Such a gateway may have ended, be connected to another node, or be cut off and go on with its last configuration.
    This node can't know which.
    """

    def __init__(self) -> None:
        self._departed: OrderedDict[str, tuple[float, StreamStatus]] = OrderedDict()

    def add(self, status: StreamStatus, now: float) -> None:
        """Adds a gateway whose last stream has ended."""
        self._departed.pop(status.node, None)
        self._departed[status.node] = now, status
        if len(self._departed) > MAX_DEPARTED:
            self._departed.popitem(last=False)

    def discard(self, node: str) -> None:
        """Removes a gateway, since it has a stream again."""
        self._departed.pop(node, None)

    def recent(self, now: float) -> list[tuple[float, StreamStatus]]:
        """Returns for each gateway the seconds since its stream ended, and its last status; latest first."""
        while self._departed and now - next(iter(self._departed.values()))[0] > DEPARTED_RETENTION:
            self._departed.popitem(last=False)
        return [(now - since, status) for since, status in reversed(self._departed.values())]


class RejectionLog:
    """Counts rejections by kind, and logs each distinct one once."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._logged: OrderedDict[tuple[ResourceKind, str], None] = OrderedDict()

    def add(self, kind: ResourceKind, node: str, reason: str) -> None:
        """Counts a rejection by the client of this node id, and logs it unless it was logged before."""
        self.count[kind_name(kind)] += 1
        is_known = (kind, reason) in self._logged
        self._logged[kind, reason] = None
        self._logged.move_to_end((kind, reason))
        if len(self._logged) > MAX_REMEMBERED_REJECTIONS:
            self._logged.popitem(last=False)
        if not is_known:
            _log.warning("%s rejects its %s, and keeps those that it had: %s", node, kind_name(kind), reason)


def kind_name(kind: ResourceKind) -> str:
    """Returns the name of a kind for people, in the plural."""
    return f"{kind.name.lower().removesuffix('s')}s"
