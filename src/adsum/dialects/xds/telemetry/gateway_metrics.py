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
from adsum.dialects.xds.bounds import MAX_BUCKETS, MAX_COUNT
from adsum.dialects.xds.telemetry.latency_window import Bounds
from adsum.dialects.xds.telemetry.refusals import malformed

MESSAGE: Final = protobufs.classes(
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
ALL: Final = ""
"""In place of a cluster: all that the gateway answered, also what is for no service."""

_CLUSTER: Final = "cluster"
_LISTENER: Final = "listener"
_GATEWAY: Final = "http.gateway"
_CLASSES: Final = {f"{side}_rq_{first}xx": first - 1 for side in ("upstream", "downstream") for first in range(1, 6)}
_TIME: Final = ("upstream_rq_time", "downstream_rq_time")
_RUNNING: Final = "downstream_rq_active"
_EXPIRES: Final = "expiration_unix_time_seconds"
_WANTED: Final = {*_CLASSES, *_TIME, _RUNNING, _EXPIRES}


class Answers(NamedTuple):
    """How many answers of one class (0: 1xx, …, 4: 5xx) there were through a cluster."""

    cluster: str
    kind: int
    number: int


class Running(NamedTuple):
    """How many requests a gateway has to answer now."""

    number: int


class Expires(NamedTuple):
    """When the certificate that a gateway shows expires, on the wall clock."""

    at: int


class Times(NamedTuple):
    """How long answers through a cluster took, in milliseconds, by bucket."""

    cluster: str
    bounds: Bounds
    counts: tuple[int, ...]


Figure = Answers | Running | Expires | Times


def parsed(request: bytes) -> Any:
    """A message of a gateway. Raises `Refused`."""
    try:
        return MESSAGE["StreamMetricsMessage"].FromString(request)
    except DecodeError:
        raise malformed("these are no figures") from None


def figures(said: Any) -> Iterator[Figure]:
    """What is of interest of a message. Raises `Refused`."""
    for family in said.envoy_metrics:
        where, _, figure = family.name.rpartition(".")
        if figure not in _WANTED or not family.metric:  # Most are not: there must be little to do for those.
            continue
        room, _, cluster = where.partition(".")
        if figure == _EXPIRES:
            if room == _LISTENER:
                yield Expires(_whole(family.metric[0].gauge.value))
            continue
        if where == _GATEWAY:
            cluster = ALL
        elif room != _CLUSTER or not cluster or "." in cluster:
            continue
        metric = family.metric[0]
        if figure in _CLASSES:
            yield Answers(cluster, _CLASSES[figure], _whole(metric.counter.value))
        elif figure in _TIME and metric.histogram.sample_count:
            yield _times(cluster, metric.histogram)
        elif figure == _RUNNING:
            yield Running(_whole(metric.gauge.value))


def _whole(value: float) -> int:
    if not 0 <= value <= MAX_COUNT:
        raise malformed(f"counts are from 0 to {MAX_COUNT}")
    return int(value)


def _times(cluster: str, histogram: Any) -> Times:
    bounds = tuple(bucket.upper_bound for bucket in histogram.bucket)
    up_to = (0, *(bucket.cumulative_count for bucket in histogram.bucket), histogram.sample_count)
    counts = tuple(after - before for before, after in pairwise(up_to))
    rising = all(low < high for low, high in pairwise((0.0, *bounds, math.inf)))
    if not 0 < len(bounds) <= MAX_BUCKETS or not rising or min(counts) < 0:
        raise malformed(f"latencies come in 1 to {MAX_BUCKETS} buckets, one above the other")
    return Times(cluster, bounds, counts)
