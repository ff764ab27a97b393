"""The streams that this node refused or ended: for the node's status, metrics and logs."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Final

from adsum.ports import Clock

REFUSAL_RETENTION: Final = 600.0
"""Seconds for which a refused stream is shown after the last time; then it is forgotten."""
MAX_REFUSED_CLIENTS: Final = 64
"""Refused clients that are shown, one entry for each client and reason; past it the entry whose last refusal is the
longest ago is forgotten."""
LOG_INTERVAL: Final = 60.0
"""Seconds after which a client that is still refused for the same reason is logged again."""
MAX_LINES_PER_INTERVAL: Final = 20
"""Lines that are logged within `LOG_INTERVAL` for all clients; further refusals are only counted and shown."""

_log = logging.getLogger("adsum.xds")


@dataclass(frozen=True, slots=True)
class RefusedClient:
    """A client whose streams this node ended for one reason.

    `node` is the client's node id, "" if it sent none; `peer` is the IP:PORT of the last stream. `code` is the gRPC
    status. `at` is when the last stream was ended, in wall-clock seconds; `count` is the number of streams.
    """

    node: str
    peer: str
    code: str
    reason: str
    at: float
    count: int


class RefusalLog:
    """Counts refused streams by status, keeps the latest, and logs them at a bounded rate."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: OrderedDict[tuple[str, str], tuple[float, RefusedClient]] = OrderedDict()
        """By client and reason, with the monotonic time of the last refusal; latest last."""
        self._logged: dict[tuple[str, str], float] = {}
        self._lines: deque[float] = deque(maxlen=MAX_LINES_PER_INTERVAL)
        self.count: Counter[str] = Counter()
        """The number of refused streams, by status."""

    def add(self, node: str, peer: str, code: str, reason: str) -> None:
        """Records that a stream is refused. `node` is the client's node id, "" if it sent none."""
        now = self._clock.now()
        self.count[code] += 1
        key = (node or peer.rpartition(":")[0], reason)
        _, before = self._clients.pop(key, (0.0, RefusedClient(node, peer, code, reason, 0.0, 0)))
        client = replace(before, peer=peer, code=code, at=self._clock.wall(), count=before.count + 1)
        self._clients[key] = now, client
        if len(self._clients) > MAX_REFUSED_CLIENTS:
            oldest, _ = self._clients.popitem(last=False)
            self._logged.pop(oldest, None)
        if self._may_log(key, now):
            times = f" ({client.count} times so far)" if client.count > 1 else ""
            _log.warning("the stream of %s is refused%s: %s", node or peer, times, reason)

    def recent(self) -> list[RefusedClient]:
        """Returns the clients refused within `REFUSAL_RETENTION`, latest first."""
        now = self._clock.now()
        for key in [key for key, (at, _) in self._clients.items() if now - at > REFUSAL_RETENTION]:
            del self._clients[key]
            self._logged.pop(key, None)
        return [client for _, client in reversed(self._clients.values())]

    def _may_log(self, key: tuple[str, str], now: float) -> bool:
        if now - self._logged.get(key, -LOG_INTERVAL) < LOG_INTERVAL:
            return False
        if len(self._lines) == MAX_LINES_PER_INTERVAL and now - self._lines[0] < LOG_INTERVAL:
            return False
        self._lines.append(now)
        self._logged[key] = now
        return True
