"""The traffic that gateways report: the requests that they answered, by gateway and by service.

Only the latest report of each gateway is kept, and nothing is added up over time. Therefore a registry that restarts
knows as much as before once all gateways have reported, no two nodes count the same requests, and a gateway that
restarts begins with nothing. A gateway reports to the node that configures it; other nodes refuse its report, and it
tries the next one. Only the caller that the node configures under this node id can report. Its reports count for the
clusters that it gets, so for no service that it may not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from adsum.core.access.principal import Principal
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

_MILLISECONDS: Final = 1_000.0
_WRONG_NODE: Final = "UNAVAILABLE"
"""The status that sends a gateway on to the node that configures it; such a refusal is not recorded."""


class TrafficSummary(NamedTuple):
    """Requests answered since Envoy began, how many of them with 5xx, and recent latencies in seconds.

    The latencies are 0.0 if there were no recent requests.
    """

    requests: int = 0
    errors: int = 0
    p50: float = 0.0
    p99: float = 0.0


class _Counts:
    """The report of one gateway about one cluster, or about all its requests."""

    __slots__ = ("answers", "latencies")

    def __init__(self) -> None:
        self.answers = [0] * 5
        """Answers by status class: 1xx to 5xx."""
        self.latencies: LatencyWindow | None = None


class _Gateway:
    """The report of one gateway on the call that it opened last."""

    __slots__ = ("by_cluster", "call", "caller", "certificate_expires", "in_progress", "total")

    def __init__(self, call: StreamCall, caller: str) -> None:
        """`caller` is the name of the principal that reports."""
        self.call = call
        self.caller = caller
        self.in_progress = 0
        self.certificate_expires = 0
        self.total = _Counts()
        self.by_cluster: dict[str, _Counts] = {}


class TrafficReports:
    """Keeps the latest report of each gateway that is connected."""

    def __init__(
        self, clock: Clock, gateway_subscribers: Callable[[str, str], GatewaySubscribers | None], refusals: RefusalLog
    ) -> None:
        """`gateway_subscribers` returns the group of a gateway by its node id and the name of the caller.

        It returns None if this node does not configure a gateway of that caller with this id.
        """
        self._clock = clock
        self._gateway_subscribers = gateway_subscribers
        self._refusals = refusals
        self._gateways: dict[str, _Gateway] = {}
        self._cluster_count = 0

    def gateway_summary(self, node: str) -> TrafficSummary:
        """Returns the summary of all requests that one gateway answered."""
        gateway = self._gateways.get(node)
        return TrafficSummary() if gateway is None else self._summary([gateway.total])

    def requests_in_progress(self, node: str) -> int:
        """Returns how many requests a gateway is answering now."""
        gateway = self._gateways.get(node)
        return 0 if gateway is None else gateway.in_progress

    def certificate_expires(self, node: str) -> int:
        """Returns when a gateway's certificate expires, in wall-clock seconds; 0 if it has none or has not reported."""
        gateway = self._gateways.get(node)
        return 0 if gateway is None else gateway.certificate_expires

    def by_service(self) -> dict[str, TrafficSummary]:
        """Returns the summary of what all gateways answered, by service."""
        parts: dict[str, list[_Counts]] = {}
        for _, service, counts in self._services():
            parts.setdefault(service, []).append(counts)
        return {service: self._summary(counts) for service, counts in parts.items()}

    def counts(self) -> list[tuple[str, str, int, int]]:
        """Returns requests and errors by gateway and service, sorted; the service "" stands for all requests."""
        totals = {(node, ALL_CLUSTERS): _requests_and_errors(gateway.total) for node, gateway in self._gateways.items()}
        for node, service, counts in self._services():
            requests, errors = totals.get((node, service), (0, 0))
            more_requests, more_errors = _requests_and_errors(counts)
            totals[node, service] = requests + more_requests, errors + more_errors
        return sorted((*key, *total) for key, total in totals.items())

    async def serve(self, call: StreamCall, principal: Principal) -> None:
        """Receives one gateway's metrics until its call ends."""
        node, caller, rate = "", principal.name, RequestRate()
        try:
            while (request := await call.read()) is not None:
                message = parse_metrics(request)
                node = node or self._begin(call, caller, message)
                self._record(node, caller, call, message)
                await self._clock.sleep(rate.delay(self._clock.now()))
        except StreamRefused as refusal:
            if refusal.code != _WRONG_NODE:
                self._refusals.add(node, call.peer, refusal.code, str(refusal))
            call.refuse(refusal.code, str(refusal))
        except ConnectionError:
            pass  # The gateway has left.
        finally:
            if node in self._gateways and self._gateways[node].call is call:
                self._forget(node)

    def _begin(self, call: StreamCall, caller: str, message: Any) -> str:
        """Returns the node id in a call's first message, and replaces what an earlier call of this node reported."""
        node: str = message.identifier.node.id
        if not node or len(node) > MAX_NODE_LENGTH or not node.isprintable():
            raise invalid_argument(
                f"the first metrics must have a node id of 1 to {MAX_NODE_LENGTH} characters, not {quoted(node)}"
            )
        if self._gateway_subscribers(node, caller) is not None:
            self._forget(node)  # An Envoy that replaces another one reports from now on.
            self._gateways[node] = _Gateway(call, caller)
        return node

    def _forget(self, node: str) -> None:
        gateway = self._gateways.pop(node, None)
        if gateway is not None:
            self._cluster_count -= len(gateway.by_cluster)

    def _record(self, node: str, caller: str, call: StreamCall, message: Any) -> None:
        subscribers = self._gateway_subscribers(node, caller)
        if subscribers is None:
            raise StreamRefused(
                _WRONG_NODE, "metrics go to the node that configures the gateway, which is not this one"
            )
        gateway = self._gateways.setdefault(node, _Gateway(call, caller))
        if gateway.call is not call:
            return
        for metric in read_metrics(message):
            if isinstance(metric, RequestsInProgress):
                gateway.in_progress = metric.total
            elif isinstance(metric, ReportedExpiry):
                gateway.certificate_expires = metric.at
            else:
                counts = self._counts_of(gateway, metric.cluster, subscribers)
                if counts is not None:
                    _update(counts, metric, self._clock.now())

    def _counts_of(self, gateway: _Gateway, cluster: str, subscribers: GatewaySubscribers) -> _Counts | None:
        """Returns the counts of a cluster; None if there is no room, or if it is a cluster of Envoy's own."""
        if cluster == ALL_CLUSTERS:
            return gateway.total
        counts = gateway.by_cluster.get(cluster)
        if counts is None and self._cluster_count < MAX_REPORTED_CLUSTERS and _is_published(cluster, subscribers):
            self._cluster_count += 1
            counts = gateway.by_cluster[cluster] = _Counts()
        return counts

    def _services(self) -> Iterator[tuple[str, str, _Counts]]:
        """Yields the counts by gateway and service, and drops those of clusters that are not published any more."""
        for node, gateway in self._gateways.items():
            subscribers = self._gateway_subscribers(node, gateway.caller)
            for cluster, counts in list(gateway.by_cluster.items()):
                if subscribers is not None and not _is_published(cluster, subscribers):
                    del gateway.by_cluster[cluster]
                    self._cluster_count -= 1
                else:
                    yield node, service_of_cluster(cluster), counts

    def _summary(self, parts: Iterable[_Counts]) -> TrafficSummary:
        requests = errors = 0
        window: LatencyWindow | None = None
        buckets: Iterable[int] = ()
        for counts in parts:
            more_requests, more_errors = _requests_and_errors(counts)
            requests, errors = requests + more_requests, errors + more_errors
            if counts.latencies is None:
                continue
            if window is None:
                window, buckets = counts.latencies, counts.latencies.counts(self._clock.now())
            elif counts.latencies.bounds == window.bounds:  # Other bounds can't be added: two versions of Envoy.
                buckets = map(int.__add__, buckets, counts.latencies.counts(self._clock.now()))
        if window is None:
            return TrafficSummary(requests, errors)
        buckets = tuple(buckets)
        p50, p99 = (quantile(rank, window.bounds, buckets) / _MILLISECONDS for rank in (0.5, 0.99))
        return TrafficSummary(requests, errors, p50, p99)


def _requests_and_errors(counts: _Counts) -> tuple[int, int]:
    return sum(counts.answers), counts.answers[-1]


def _update(counts: _Counts, metric: AnswerCount | LatencyHistogram, now: float) -> None:
    if isinstance(metric, AnswerCount):
        counts.answers[metric.status_class] = metric.total
        return
    if counts.latencies is None or counts.latencies.bounds != metric.bounds:
        counts.latencies = LatencyWindow(metric.bounds, now)
    counts.latencies.add(metric.counts, now)


def _is_published(cluster: str, subscribers: GatewaySubscribers) -> bool:
    names = (cluster_name(service_of_cluster(cluster), version) for version in HttpVersion)
    return any(subscribers.find(ResourceKind.CLUSTER, name) is not None for name in names)
