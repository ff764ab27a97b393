"""The load of endpoints as one consumer sees it: calls in flight and peak EWMA latency.

Loads are kept by endpoint id in the channel, so that they outlive the pickers that read them. They may be used from
several threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp
from threading import Lock
from typing import Final

LATENCY_DECAY: Final = 10.0
"""Seconds after which the weight of a latency has fallen to 1/e."""
MIN_FAILURE_LATENCY: Final = 1.0
"""Seconds, the lowest latency with which a failed call is counted: an endpoint that fails fast must not look fast."""


class EndpointLoad:
    """The load of one endpoint: the calls `in_flight`, and `latency`, the peak EWMA in seconds at `observed_at`.

    `latency` is 0.0 before the first call has ended. It rises to a higher observation at once and falls to lower ones
    by exp(-elapsed / decay), after finagle's `PeakEwma.scala`.
    """

    __slots__ = ("_decay", "_lock", "in_flight", "latency", "observed_at")

    def __init__(self, decay: float, lock: Lock) -> None:
        self.in_flight = 0
        self.latency = 0.0
        self.observed_at = 0.0
        self._decay = decay
        self._lock = lock

    def finish(self, ok: bool, latency: float, now: float) -> None:
        """Records that a call that was started has ended after `latency` seconds."""
        with self._lock:
            self.in_flight -= 1
            self._observe(latency if ok else max(latency, self.latency, MIN_FAILURE_LATENCY), now)

    def cancel(self) -> None:
        """Records that a call that was started has ended without a result for the endpoint."""
        with self._lock:
            self.in_flight -= 1

    def _observe(self, latency: float, now: float) -> None:
        if latency >= self.latency:
            self.latency = latency
        else:
            weight = exp(-max(0.0, now - self.observed_at) / self._decay)
            self.latency = self.latency * weight + latency * (1.0 - weight)
        self.observed_at = now


class LoadTracker:
    """The loads of the endpoints of one channel. `decay` is in seconds."""

    def __init__(self, decay: float = LATENCY_DECAY) -> None:
        self.decay = decay
        self._lock = Lock()
        self._loads: dict[str, EndpointLoad] = {}
        self._departed: set[str] = set()
        """The ids of the latest departures, and of earlier ones that had calls in flight."""

    def load_of(self, id: str) -> EndpointLoad:
        """Returns the load of the endpoint, and creates it if needed."""
        load = self._loads.get(id)
        return load if load is not None else self._loads.setdefault(id, EndpointLoad(self.decay, self._lock))

    def start(self, id: str) -> EndpointLoad:
        """Counts a call to the endpoint as in flight. End it once, with the load's `finish` or `cancel`."""
        load = self._loads.get(id) or self.load_of(id)
        with self._lock:
            load.in_flight += 1
        return load

    def update_endpoints(self, came: Iterable[str], gone: Iterable[str], replaced: Iterable[str] = ()) -> None:
        """Drops the loads of the ids in `gone` when they have no call in flight, and of the ids in `replaced` at once.

        The ids in `replaced` belong to other processes now. Calls in flight are still counted at the dropped loads.
        """
        for id in replaced:
            self._loads.pop(id, None)
        # A pick in another thread may start a call to an id that has just gone. So each is looked at twice.
        busy = {id for id in self._departed.difference(came) if not self._drop_idle(id)}
        self._departed = busy.union(gone)
        for id in self._departed:
            self._drop_idle(id)

    def _drop_idle(self, id: str) -> bool:
        """Drops the load of the id if it has no call in flight. Returns whether there is none now."""
        load = self._loads.get(id)
        if load is not None and not load.in_flight:
            self._loads.pop(id, None)
            return True
        return load is None

    def __len__(self) -> int:
        return len(self._loads)
