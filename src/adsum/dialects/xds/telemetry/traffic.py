"""What gateways answered their callers, by gateway and by service: whatever each said last, nothing added up here.

So a registry that is started again knows as much as before once they have spoken, no two nodes count the same, and a
gateway that begins anew begins with nothing. A gateway is heard where it is told what to do; other nodes turn it away,
and it tries the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from adsum.core.validation import quoted
from adsum.dialects.xds.streams.errors import StreamRefused, invalid_argument
from adsum.dialects.xds.streams.request import MAX_NODE_LENGTH
from adsum.dialects.xds.streams.request_rate import RequestRate
from adsum.dialects.xds.subscribers import GatewaySubscribers
from adsum.dialects.xds.telemetry.gateway_metrics import (
    ALL_CLUSTERS,
    AnswerCount,
    LatencyHistogram,
    ReportedExpiry,
    RequestsInProgress,
    parse_metrics,
    read_metrics,
)
from adsum.dialects.xds.telemetry.latency_window import LatencyWindow, quantile
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from adsum.gateway.encoding.clusters.http_versions import HttpVersion, cluster_name
from adsum.gateway.intent.selectors import service_of_cluster
from adsum.gateway.resources.resources import ResourceKind
from adsum.mounts import StreamCall
from adsum.ports import Clock

MAX_REPORTED_CLUSTERS: Final = 20_000
"""Pairs of gateway and cluster whose metrics are kept; further ones are not shown, and those that left are dropped."""

_MILLISECOND: Final = 1_000.0
_ELSEWHERE: Final = "UNAVAILABLE"
"""The status that sends a gateway to the node that hears it; it is no fault of anybody."""


class TrafficSummary(NamedTuple):
    """Requests that were answered since Envoy began, and how many of them with 5xx; seconds that the latest took.

    The latencies are 0.0 while there were none of late.
    """

    requests: int = 0
    errors: int = 0
    p50: float = 0.0
    p99: float = 0.0


class _Kept:
    """What one gateway said of one cluster."""

    __slots__ = ("answers", "latencies")

    def __init__(self) -> None:
        self.answers = [0] * 5
        self.latencies: LatencyWindow | None = None


class _Gateway:
    """What one gateway said on the stream that it opened last."""

    __slots__ = ("by_cluster", "call", "expires", "running", "whole")

    def __init__(self, call: StreamCall) -> None:
        self.call = call
        self.running = 0
        self.expires = 0
        self.whole = _Kept()
        self.by_cluster: dict[str, _Kept] = {}


class TrafficReports:
    """Keeps what gateways say while they say it."""

    def __init__(
        self, clock: Clock, gateway_subscribers: Callable[[str], GatewaySubscribers | None], refusals: RefusalLog
    ) -> None:
        """`told` is what a gateway of that id is told here; None: it is not."""
        self._clock = clock
        self._told = gateway_subscribers
        self._refusals = refusals
        self._of: dict[str, _Gateway] = {}
        self._count = 0

    def gateway_summary(self, node: str) -> TrafficSummary:
        """Everything that one gateway answered."""
        gateway = self._of.get(node)
        return TrafficSummary() if gateway is None else self._summary([gateway.whole])

    def requests_in_progress(self, node: str) -> int:
        """How many requests it has to answer now."""
        gateway = self._of.get(node)
        return 0 if gateway is None else gateway.running

    def certificate_expires(self, node: str) -> int:
        """When its certificate expires, on the wall clock; 0 if it shows none, or has not said."""
        gateway = self._of.get(node)
        return 0 if gateway is None else gateway.expires

    def by_service(self) -> dict[str, TrafficSummary]:
        """What all gateways together answered for each service."""
        parts: dict[str, list[_Kept]] = {}
        for _, service, kept in self._services():
            parts.setdefault(service, []).append(kept)
        return {service: self._summary(each) for service, each in parts.items()}

    def counts(self) -> list[tuple[str, str, int, int]]:
        """Requests and errors that each gateway answered for each service, and in all (""); in order."""
        counts = {(node, ALL_CLUSTERS): _counts(gateway.whole) for node, gateway in self._of.items()}
        for node, service, kept in self._services():
            requests, errors = counts.get((node, service), (0, 0))
            more, failed = _counts(kept)
            counts[node, service] = requests + more, errors + failed
        return sorted((*pair, *each) for pair, each in counts.items())

    async def serve(self, call: StreamCall) -> None:
        """Take what one gateway says until it ends."""
        node, pace = "", RequestRate()
        try:
            while (request := await call.read()) is not None:
                said = parse_metrics(request)
                node = node or self._greet(call, said)
                self._take(node, call, said)
                await self._clock.sleep(pace.delay(self._clock.now()))
        except StreamRefused as refusal:
            if refusal.code != _ELSEWHERE:
                self._refusals.add(node, call.peer, refusal.code, str(refusal))
            call.refuse(refusal.code, str(refusal))
        except ConnectionError:
            pass
        finally:
            if node in self._of and self._of[node].call is call:
                self._forget(node)

    def _greet(self, call: StreamCall, said: Any) -> str:
        node: str = said.identifier.node.id
        if not node or len(node) > MAX_NODE_LENGTH or not node.isprintable():
            raise invalid_argument(f"the first figures must say which node they are from, not {quoted(node)}")
        if self._told(node) is not None:
            self._forget(node)  # The Envoy that takes over from another one has the word.
            self._of[node] = _Gateway(call)
        return node

    def _forget(self, node: str) -> None:
        gateway = self._of.pop(node, None)
        if gateway is not None:
            self._count -= len(gateway.by_cluster)

    def _take(self, node: str, call: StreamCall, said: Any) -> None:
        told = self._told(node)
        if told is None:
            raise StreamRefused(_ELSEWHERE, "figures are heard by the node that tells the gateway what to do")
        gateway = self._of.setdefault(node, _Gateway(call))
        if gateway.call is not call:
            return
        for figure in read_metrics(said):
            if isinstance(figure, RequestsInProgress):
                gateway.running = figure.total
                continue
            if isinstance(figure, ReportedExpiry):
                gateway.expires = figure.at
                continue
            kept = self._kept(gateway, figure.cluster, told)
            if kept is not None:
                _note(kept, figure, self._clock.now())

    def _kept(self, gateway: _Gateway, cluster: str, told: GatewaySubscribers) -> _Kept | None:
        """Where that is kept; None: there is no room, or it is a cluster of Envoy's own."""
        if cluster == ALL_CLUSTERS:
            return gateway.whole
        kept = gateway.by_cluster.get(cluster)
        if kept is None and self._count < MAX_REPORTED_CLUSTERS and _is_told(cluster, told):
            self._count += 1
            kept = gateway.by_cluster[cluster] = _Kept()
        return kept

    def _services(self) -> Iterator[tuple[str, str, _Kept]]:
        """What is kept, by gateway and service, once what gateways are not told of any more is forgotten."""
        for node, gateway in self._of.items():
            told = self._told(node)
            for cluster, kept in list(gateway.by_cluster.items()):
                if told is not None and not _is_told(cluster, told):
                    del gateway.by_cluster[cluster]
                    self._count -= 1
                else:
                    yield node, service_of_cluster(cluster), kept

    def _summary(self, parts: Iterable[_Kept]) -> TrafficSummary:
        requests = errors = 0
        late: LatencyWindow | None = None
        counts: Iterable[int] = ()
        for kept in parts:
            more, failed = _counts(kept)
            requests, errors = requests + more, errors + failed
            if kept.latencies is None:
                continue
            if late is None:
                late, counts = kept.latencies, kept.latencies.counts(self._clock.now())
            elif kept.latencies.bounds == late.bounds:  # Others can't be added: of two versions, one is shown.
                counts = map(int.__add__, counts, kept.latencies.counts(self._clock.now()))
        if late is None:
            return TrafficSummary(requests, errors)
        counts = tuple(counts)
        p50, p99 = (quantile(share, late.bounds, counts) / _MILLISECOND for share in (0.5, 0.99))
        return TrafficSummary(requests, errors, p50, p99)


def _counts(kept: _Kept) -> tuple[int, int]:
    """Requests and errors."""
    return sum(kept.answers), kept.answers[-1]


def _note(kept: _Kept, figure: AnswerCount | LatencyHistogram, now: float) -> None:
    if isinstance(figure, AnswerCount):
        kept.answers[figure.status_class] = figure.total
        return
    if kept.latencies is None or kept.latencies.bounds != figure.bounds:
        kept.latencies = LatencyWindow(figure.bounds, now)
    kept.latencies.add(figure.counts, now)


def _is_told(cluster: str, told: GatewaySubscribers) -> bool:
    names = (cluster_name(service_of_cluster(cluster), version) for version in HttpVersion)
    return any(told.find(ResourceKind.CLUSTER, name) is not None for name in names)
