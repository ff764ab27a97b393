"""What a gateway says of the requests that it answered: Envoy's own figures (MetricsService), as callers saw it.

A request counts once, when it is answered, whoever answered and however often it was tried. Counts are since Envoy
began, whatever was heard of them before; latencies are those since it last said some.
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
    "adsum.xds.figures",
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
"""As far as they are read, those of envoy/service/metrics/v3/metrics_service.proto and of Prometheus' metrics.proto."""
ALL_CLUSTERS: Final = ""
"""In place of a cluster: all that the gateway answered, also what is for no service."""

_CLUSTER: Final = "cluster"
_LISTENER: Final = "listener"
_GATEWAY: Final = "http.gateway"
_CLASSES: Final = {f"{side}_rq_{first}xx": first - 1 for side in ("upstream", "downstream") for first in range(1, 6)}
_TIME: Final = ("upstream_rq_time", "downstream_rq_time")
_RUNNING: Final = "downstream_rq_active"
_EXPIRES: Final = "expiration_unix_time_seconds"
_WANTED: Final = {*_CLASSES, *_TIME, _RUNNING, _EXPIRES}


class AnswerCount(NamedTuple):
    """How many answers of one class (0: 1xx, …, 4: 5xx) there were through a cluster."""

    cluster: str
    status_class: int
    total: int


class RequestsInProgress(NamedTuple):
    """How many requests a gateway has to answer now."""

    total: int


class ReportedExpiry(NamedTuple):
    """When the certificate that a gateway shows expires, on the wall clock."""

    at: int


class LatencyHistogram(NamedTuple):
    """How long answers through a cluster took, in milliseconds, by bucket."""

    cluster: str
    bounds: BucketBounds
    counts: tuple[int, ...]


GatewayMetric = AnswerCount | RequestsInProgress | ReportedExpiry | LatencyHistogram


def parse_metrics(request: bytes) -> Any:
    """A message of a gateway. Raises `Refused`."""
    try:
        return MESSAGE_TYPES["StreamMetricsMessage"].FromString(request)
    except DecodeError:
        raise invalid_argument("these are no figures") from None


def read_metrics(message: Any) -> Iterator[GatewayMetric]:
    """What is of interest of a message. Raises `Refused`."""
    for family in message.envoy_metrics:
        where, _, figure = family.name.rpartition(".")
        if figure not in _WANTED or not family.metric:  # Most are not: there must be little to do for those.
            continue
        room, _, cluster = where.partition(".")
        if figure == _EXPIRES:
            if room == _LISTENER:
                yield ReportedExpiry(_whole(family.metric[0].gauge.value))
            continue
        if where == _GATEWAY:
            cluster = ALL_CLUSTERS
        elif room != _CLUSTER or not cluster or "." in cluster:
            continue
        metric = family.metric[0]
        if figure in _CLASSES:
            yield AnswerCount(cluster, _CLASSES[figure], _whole(metric.counter.value))
        elif figure in _TIME and metric.histogram.sample_count:
            yield _times(cluster, metric.histogram)
        elif figure == _RUNNING:
            yield RequestsInProgress(_whole(metric.gauge.value))


def _whole(value: float) -> int:
    if not 0 <= value <= MAX_COUNTER_VALUE:
        raise invalid_argument(f"counts are from 0 to {MAX_COUNTER_VALUE}")
    return int(value)


def _times(cluster: str, histogram: Any) -> LatencyHistogram:
    bounds = tuple(bucket.upper_bound for bucket in histogram.bucket)
    up_to = (0, *(bucket.cumulative_count for bucket in histogram.bucket), histogram.sample_count)
    counts = tuple(after - before for before, after in pairwise(up_to))
    rising = all(low < high for low, high in pairwise((0.0, *bounds, math.inf)))
    if not 0 < len(bounds) <= MAX_LATENCY_BUCKETS or not rising or min(counts) < 0:
        raise invalid_argument(f"latencies come in 1 to {MAX_LATENCY_BUCKETS} buckets, one above the other")
    return LatencyHistogram(cluster, bounds, counts)
