"""A pick: one chosen endpoint, and the call to it that is in flight."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from adsum.balance.load_tracker import EndpointLoad
from adsum.core.model import Endpoint


class PickOwner(Protocol):
    """The channel of a pick, which records the result."""

    def record_result(self, pick: Pick, load: EndpointLoad, ok: bool, latency: float | None) -> None:
        """`ok` and `latency` are those of `Pick.done`. Called once for each pick that ends with `done`."""
        ...


class Pick:
    """A call to `endpoint` that counts as in flight until `done` or `cancel`. Only the first of these counts.

    As a context manager it calls `done` when the block ends, with `ok` False if an `Exception` leaves the block. It
    calls `cancel` if the block is cancelled (`CancelledError`, `KeyboardInterrupt`).
    """

    __slots__ = ("_load", "_owner", "endpoint", "started_at")

    def __init__(self, owner: PickOwner, endpoint: Endpoint, load: EndpointLoad, started_at: float) -> None:
        self._owner = owner
        self._load: EndpointLoad | None = load
        self.endpoint = endpoint
        self.started_at = started_at

    @property
    def is_open(self) -> bool:
        """True if the call has not ended yet."""
        return self._load is not None

    def done(self, ok: bool = True, latency: float | None = None) -> None:
        """Ends the call. `ok` False counts against the endpoint. `latency`: seconds; None: the time since the pick."""
        load, self._load = self._load, None
        if load is not None:
            self._owner.record_result(self, load, ok, latency)

    def cancel(self) -> None:
        """Ends the call without a result for the endpoint."""
        load, self._load = self._load, None
        if load is not None:
            load.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self.done(ok=kind is None)
        else:
            self.cancel()
