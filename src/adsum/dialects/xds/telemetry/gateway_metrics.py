"""Parses the metrics that Envoy sends (MetricsService): answers, requests in progress, latencies, certificate expiry.

A request counts once, when it is answered, by an instance or by Envoy itself, however often it was tried.
Counters run since Envoy began; histograms have the latencies since the message before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from adsum import protobufs
from adsum.dialects.xds.streams.errors import invalid_argument
from adsum.dialects.xds.telemetry.latency_window import BucketBounds

MAX_LATENCY_BUCKETS: Final = 64
"""Buckets of a latency histogram; a stream that sends more is ended."""
MAX_COUNTER_VALUE: Final = 2**53
"""The largest count, which is the largest whole number of a float; a stream that sends a larger one is ended."""

MESSAGE_TYPES: Final = protobufs.message_classes(
    "adsum.xds.metrics",
    {
        "Node": "string id=1",
        "Identifier": "Node node=1",
        "Bucket": "uint64 cumulative_count=1, double upper_bound=2",
        "Histogram": "uint64 sample_count=1, repeated Bucket bucket=3",
        "Value": "double value=1",
        "Metric": "Value gauge=2, Value counter=3, Histogram histogram=7",
        "MetricFamily": "string name=1, repeated Metric metric=4",
        "StreamMetricsMessage": "Identifier identifier=1, repeated MetricFamily envoy_metrics=2",
    },
)
"""The fields that are read, of envoy/service/metrics/v3/metrics_service.proto and Prometheus' metrics.proto."""
ALL_CLUSTERS: Final = ""
"""The name that stands for all clusters in metrics about all requests, also those for no service."""

_CLUSTER: Final = "cluster"
_LISTENER: Final = "listener"
_GATEWAY: Final = "http.gateway"
_STATUS_CLASSES: Final = {
    f"{side}_rq_{first}xx": first - 1 for side in ("upstream", "downstream") for first in range(1, 6)
}
_LATENCY: Final = ("upstream_rq_time", "downstream_rq_time")
_IN_PROGRESS: Final = "downstream_rq_active"
_CERTIFICATE_EXPIRES: Final = "expiration_unix_time_seconds"
_WANTED: Final = {*_STATUS_CLASSES, *_LATENCY, _IN_PROGRESS, _CERTIFICATE_EXPIRES}


class AnswerCount(NamedTuple):
    """The number of answers of one class (0: 1xx, …, 4: 5xx) through a cluster."""

    cluster: str
    status_class: int
    total: int


class RequestsInProgress(NamedTuple):
    """The number of requests that a gateway is answering now."""

    total: int


class ReportedExpiry(NamedTuple):
    """The expiry of a gateway's certificate, in wall-clock seconds."""

    at: int


class LatencyHistogram(NamedTuple):
    """The latencies of answers through a cluster: bounds in milliseconds, and counts by bucket."""

    cluster: str
    bounds: BucketBounds
    counts: tuple[int, ...]


GatewayMetric = AnswerCount | RequestsInProgress | ReportedExpiry | LatencyHistogram


def parse_metrics(request: bytes) -> Any:
    """Parses a message. Raises `StreamRefused`."""
    try:
        return MESSAGE_TYPES["StreamMetricsMessage"].FromString(request)
    except DecodeError:
        raise invalid_argument("the message is not a metrics message") from None


def read_metrics(message: Any) -> Iterator[GatewayMetric]:
    """Returns the metrics of a message that are kept. Raises `StreamRefused`."""
    for family in message.envoy_metrics:
        prefix, _, name = family.name.rpartition(".")
        if name not in _WANTED or not family.metric:  # Most are not, so this must be fast.
            continue
        scope, _, cluster = prefix.partition(".")
        if name == _CERTIFICATE_EXPIRES:
            if scope == _LISTENER:
                yield ReportedExpiry(_count(family.metric[0].gauge.value))
            continue
        if prefix == _GATEWAY:
            cluster = ALL_CLUSTERS
        elif scope != _CLUSTER or not cluster or "." in cluster:
            continue
        metric = family.metric[0]
        if name in _STATUS_CLASSES:
            yield AnswerCount(cluster, _STATUS_CLASSES[name], _count(metric.counter.value))
        elif name in _LATENCY and metric.histogram.sample_count:
            yield _histogram(cluster, metric.histogram)
        elif name == _IN_PROGRESS:
            yield RequestsInProgress(_count(metric.gauge.value))


def _count(value: float) -> int:
    if not 0 <= value <= MAX_COUNTER_VALUE:
        raise invalid_argument(f"a count must be from 0 to {MAX_COUNTER_VALUE}, not {value:g}")
    return int(value)


def _histogram(cluster: str, histogram: Any) -> LatencyHistogram:
    bounds = tuple(bucket.upper_bound for bucket in histogram.bucket)
    cumulative = (0, *(bucket.cumulative_count for bucket in histogram.bucket), histogram.sample_count)
    counts = tuple(after - before for before, after in pairwise(cumulative))
    is_ascending = all(low < high for low, high in pairwise((0.0, *bounds, math.inf)))
    if not 0 < len(bounds) <= MAX_LATENCY_BUCKETS or not is_ascending or min(counts) < 0:
        raise invalid_argument(f"a histogram must have 1 to {MAX_LATENCY_BUCKETS} buckets with ascending bounds")
    return LatencyHistogram(cluster, bounds, counts)
