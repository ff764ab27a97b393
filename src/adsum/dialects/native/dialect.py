"""The native dialect of a node: its API on the HTTP server, for every path that no other dialect takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from adsum.dialects.dialect import Dialect, DialectContext
from adsum.dialects.native.app import Native
from adsum.mounts import HttpPath, Mount

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def create(context: DialectContext) -> NativeDialect:
    """Returns the dialect. Every node has it."""
    return NativeDialect(context)


class NativeDialect(Dialect):
    """Serves the native HTTP API, with a fast path for brief requests."""

    def __init__(self, context: DialectContext) -> None:
        self._native = Native(
            context.registry,
            context.keeper,
            context.clock,
            context.observer,
            context.rng,
            check_address=context.check_address,
            latest_outcomes=context.keeper.last_outcomes,
            status=context.node_status,
            exposition=context.metrics_text,
            access=context.access,
            authority=context.authority,
            addresses=context.addresses,
            peers=context.peers,
            node=context.node,
        )

    def mounts(self) -> Sequence[Mount]:
        return [HttpPath("", self._native, self._native.fast_path)]

    def metrics(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        text = "Memory of pages, at most as much as registrations may take"
        yield GaugeMetricFamily("adsum_pages_bytes", text, value=self._native.pages_bytes)
