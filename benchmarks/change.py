"""The cost of one change of a large catalog, at the node and at a consumer, in one process and without a network.

The node decides and applies the change (`apply`), encodes the service's page (`page`) and the event for its watchers
(`event`). A consumer applies the event to its view (`fold`), updates what it keeps of each endpoint (`changes`),
selects endpoints (`select`) and builds the picker (`picker`). Each is the median of several changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from time import perf_counter
from typing import Final, cast

from msgspec.structs import replace

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.outlier_detector import OutlierDetector
from adsum.balance.policies import policy
from adsum.client.calls.options import DEFAULT_POLICY
from adsum.client.calls.view_changes import view_changes
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.client.views.view_state import ViewState
from adsum.core.catalog import decisions, snapshots
from adsum.core.catalog.changes import Batch, FullState
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.draft import MAX_CATALOG_BYTES, Draft
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Endpoint, Listing, Registration, Status
from adsum.core.selection import EndpointSelector
from adsum.dialects.native.events.watch_events import WatchEvents
from adsum.dialects.native.pages.pages import Pages
from adsum.registry import Registry
from benchmarks.harness import workload
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, ResultRow, duration, durations, log_progress

SIZES: Final = (10_000, 100_000)
SERVICES: Final = 1_000
CHANGES: Final = 15


def run(options: RunOptions) -> list[Result]:
    rows: list[Result] = []
    for size in options.count(1, 0) * SIZES or (1_000,):
        for services in (1, SERVICES):
            log_progress(f"  the node's side, {size:,} instances in {services:,} services")
            rows.append(_node_row(size, services))
        log_progress(f"  the consumer's side, {size:,} instances")
        rows.append(_consumer_row(size))
    return rows


def _node_row(size: int, services: int) -> ResultRow:
    node = _Node(workload.listing(number, name) for number, name in _names(size, services))
    steps = _steps(node.change)
    place = "one service" if services == 1 else f"{services:,} services"
    return _row(
        f"a change of one instance of {size:,} in {place}: apply + page + event", steps, ("apply", "page", "event")
    )


def _consumer_row(size: int) -> ResultRow:
    consumer = _Consumer([workload.endpoint(number) for number in range(size)])
    steps = _steps(consumer.change)
    return _row(
        f"a change at a consumer of {size:,} instances: fold + changes + select + picker",
        steps,
        ("fold", "changes", "select", "picker"),
    )


def _row(label: str, steps: Sequence[float], names: Sequence[str]) -> ResultRow:
    text = f"{duration(sum(steps))} ({durations(steps)})"
    return ResultRow(label, text, values=tuple(zip(names, steps, strict=True)))


def _steps(change: Callable[[int], tuple[float, ...]]) -> tuple[float, ...]:
    """Returns the median of each step in seconds. The first change is not counted, since it fills caches."""
    change(0)
    rounds = [change(number + 1) for number in range(CHANGES)]
    return tuple(median(step) for step in zip(*rounds, strict=True))


def _names(size: int, services: int) -> Iterable[tuple[int, str]]:
    service_size = max(1, size // services)
    return ((number, f"s-{number // service_size:04}") for number in range(size))


@dataclass
class _PagesRegistry:
    """The part of a registry that pages use."""

    snapshot: Snapshot
    max_catalog_bytes: int = MAX_CATALOG_BYTES

    def age(self) -> float:
        return 0.0


class _Node:
    """A catalog with its pages and events; instances of its first service change."""

    def __init__(self, listings: Iterable[Listing]) -> None:
        snapshot = snapshots.load_snapshot(FullState("bench", 1, ((1, listing) for listing in listings)))
        self._registry = _PagesRegistry(snapshot)
        pages = Pages(cast("Registry", self._registry))
        self._pages, self._events = pages, WatchEvents(pages)
        self._first = next(iter(snapshot.services))

    def change(self, number: int) -> tuple[float, float, float]:
        """Changes an instance, and returns the seconds of applying the change, of the page and of the event."""
        before = self._registry.snapshot
        listings = list(before.service(self._first).listings.values())
        registration = _with_another_port(listings[number % len(listings)].registration)
        began = perf_counter()
        changes = decisions.register(registration, Caller("bench", 1.0))(Draft(before))
        after = before.apply(Batch(before.revision + 1, changes))
        self._registry.snapshot = after
        applied = perf_counter()
        self._pages.page(self._first, None)
        paged = perf_counter()
        self._events.changes_since(after, frozenset({self._first}), before.revision, 0.0)
        return applied - began, paged - applied, perf_counter() - paged


def _with_another_port(registration: Registration) -> Registration:
    instance = registration.instance
    return replace(registration, instance=replace(instance, port=instance.port % 60_000 + 1))


class _Consumer:
    """A consumer that processes changes as a channel does, without its timers."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._view = ViewState()
        self._view.apply(
            ServiceUpdate(ViewPosition("bench", 1), True, {endpoint.id: endpoint for endpoint in endpoints}), 0.0
        )
        self._policy, self._loads, self._rng = policy(DEFAULT_POLICY), LoadTracker(), Random(1)
        self._outliers = OutlierDetector()
        self._endpoints = self._view.endpoints
        self._outliers.update_endpoints([endpoint.id for endpoint in self._endpoints])
        self._selector = EndpointSelector()
        self._picker = self._policy.build(self._selector.select(self._endpoints).endpoints, self._loads, self._rng)

    def change(self, number: int) -> tuple[float, float, float, float]:
        """Changes an endpoint, and returns the seconds of each step."""
        changed = Endpoint(workload.instance(number), Status.DRAINING)
        began = perf_counter()
        self._view.apply(
            ServiceUpdate(ViewPosition("bench", number + 2), False, {changed.id: changed}, since=number + 1), 0.0
        )
        endpoints = self._view.endpoints
        folded = perf_counter()
        changes = view_changes(self._endpoints, endpoints)
        self._loads.update_endpoints(changes.came, changes.gone, changes.replaced)
        self._outliers.update_endpoints(changes.came, changes.gone, changes.replaced)
        self._endpoints = endpoints
        processed = perf_counter()
        selection = self._selector.select(endpoints)
        selected = perf_counter()
        self._picker = self._policy.build(selection.endpoints, self._loads, self._rng, previous=self._picker)
        return folded - began, processed - folded, selected - processed, perf_counter() - selected
