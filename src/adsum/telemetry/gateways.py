"""What Prometheus is told of gateways and gRPC clients, and of the requests that they report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from adsum.dialects.xds import Xds


def metrics(xds: Xds) -> Iterable[Metric]:
    """Streams by program, what is sent and rejected, and the requests to each service that clients report."""
    streams = xds.streams
    programs = GaugeMetricFamily("adsum_xds_streams", "Open streams of gateways and gRPC clients", labels=["program"])
    for program, count in sorted(streams.programs().items()):
        programs.add_metric([program], count)
    yield programs
    rejections = CounterMetricFamily("adsum_xds_rejections", "Responses that clients rejected", labels=["kind"])
    for kind, count in sorted(streams.rejections.count.items()):
        rejections.add_metric([kind], count)
    yield rejections
    yield CounterMetricFamily("adsum_xds_responses", "Responses sent to clients", value=streams.pushes)
    yield CounterMetricFamily("adsum_xds_shed", "Streams cut off because they did not read", value=streams.shed)
    yield from _loads(xds)


def _loads(xds: Xds) -> Iterable[Metric]:
    requests = CounterMetricFamily("adsum_routed_requests", "Requests that clients routed", labels=["service"])
    errors = CounterMetricFamily("adsum_routed_errors", "Those of them that failed", labels=["service"])
    dropped = CounterMetricFamily("adsum_routed_dropped", "Requests that clients did not route", labels=["service"])
    running = GaugeMetricFamily("adsum_routed_in_progress", "Requests in progress at clients", labels=["service"])
    for service, load in sorted(xds.loads.by_service().items()):
        requests.add_metric([service], load.requests)
        errors.add_metric([service], load.errors)
        dropped.add_metric([service], load.dropped)
        running.add_metric([service], load.in_progress)
    yield from (requests, errors, dropped, running)
    yield from _instance_loads(xds)


def _instance_loads(xds: Xds) -> Iterable[Metric]:
    labels = ["service", "instance"]
    requests = CounterMetricFamily(
        "adsum_routed_instance_requests", "Requests that clients routed to it", labels=labels
    )
    errors = CounterMetricFamily("adsum_routed_instance_errors", "Those of them that failed", labels=labels)
    for key, load in sorted(xds.instance_loads(), key=lambda each: each[0]):
        requests.add_metric([*key], load.requests)
        errors.add_metric([*key], load.errors)
    yield from (requests, errors)
