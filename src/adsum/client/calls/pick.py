"""One choice of a channel: the endpoint, and the duty to say how the call ended."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from adsum.balance.load_tracker import EndpointLoad
from adsum.core.model import Endpoint

if TYPE_CHECKING:
    from adsum.client.calls.channel import Channel


class Pick:
    """A call to `endpoint` that counts as in flight until `done` or `cancel`; the first of them counts.

    As a context manager it is done when the block ends: well, or not if an `Exception` escapes; it is cancelled if the
    block is (`CancelledError`, `KeyboardInterrupt`).
    """

    __slots__ = ("_channel", "_load", "endpoint", "started_at")

    def __init__(self, channel: Channel, endpoint: Endpoint, load: EndpointLoad, started_at: float) -> None:
        self._channel = channel
        self._load: EndpointLoad | None = load
        self.endpoint = endpoint
        self.started_at = started_at

    @property
    def is_open(self) -> bool:
        """Whether nobody said yet how the call ended."""
        return self._load is not None

    def done(self, ok: bool = True, latency: float | None = None) -> None:
        """The call ended; `ok` if the endpoint did its part, after `latency` seconds (without: since the pick)."""
        load, self._load = self._load, None
        if load is not None:
            self._channel.record_result(self, load, ok, latency)

    def cancel(self) -> None:
        """The call ended without saying anything about the endpoint."""
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
