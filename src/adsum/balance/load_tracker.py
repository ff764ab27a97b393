"""What a consumer knows of its endpoints' load: calls in flight and peak EWMA latency.

Keyed by endpoint id and kept by the channel, so that loads outlive the pickers that read them. May be used from
several threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from math import exp
from threading import Lock
from typing import Final

LATENCY_DECAY: Final = 10.0
"""Seconds after which a latency counts for 1/e of itself."""
MIN_FAILURE_LATENCY: Final = 1.0
"""Seconds that a failed call counts for at least: an endpoint that fails fast must not look fast."""


class EndpointLoad:
    """One endpoint's load. `in_flight` calls; `latency`, the peak EWMA in seconds as of `at` (0.0: never seen).

    The latency jumps to a higher observation at once and sinks to lower ones by exp(-elapsed / decay), after finagle's
    `PeakEwma.scala`.
    """

    __slots__ = ("_decay", "_lock", "at", "in_flight", "latency")

    def __init__(self, decay: float, lock: Lock) -> None:
        self.in_flight = 0
        self.latency = 0.0
        self.at = 0.0
        self._decay = decay
        self._lock = lock

    def finish(self, ok: bool, latency: float, now: float) -> None:
        """A call that was started ended after `latency` seconds."""
        with self._lock:
            self.in_flight -= 1
            self._observe(latency if ok else max(latency, self.latency, MIN_FAILURE_LATENCY), now)

    def cancel(self) -> None:
        """A call that was started ended without saying anything about the endpoint."""
        with self._lock:
            self.in_flight -= 1

    def _observe(self, latency: float, now: float) -> None:
        if latency >= self.latency:
            self.latency = latency
        else:
            old = exp(-max(0.0, now - self.at) / self._decay)
            self.latency = self.latency * old + latency * (1.0 - old)
        self.at = now


class LoadTracker:
    """The load of every endpoint of one channel. `decay` is in seconds."""

    def __init__(self, decay: float = LATENCY_DECAY) -> None:
        self.decay = decay
        self._lock = Lock()
        self._loads: dict[str, EndpointLoad] = {}

    def load_of(self, id: str) -> EndpointLoad:
        """The endpoint's load, known from now on."""
        load = self._loads.get(id)
        return load if load is not None else self._loads.setdefault(id, EndpointLoad(self.decay, self._lock))

    def start(self, id: str) -> EndpointLoad:
        """Count a call to the endpoint as in flight; end it with the load's `finish` or `cancel`, once."""
        load = self._loads.get(id) or self.load_of(id)
        with self._lock:
            load.in_flight += 1
        return load

    def retain(self, ids: Iterable[str], replaced: Set[str] = frozenset()) -> None:
        """Forget every endpoint that is not among `ids` and has no call in flight, and what was counted of `replaced`:
        these are other processes now, and calls that are in flight end at the ones before.
        """
        kept = set(ids)
        for id, load in list(self._loads.items()):
            if id in replaced or (id not in kept and not load.in_flight):
                self._loads.pop(id, None)

    def __len__(self) -> int:
        return len(self._loads)
