"""The Prometheus metrics of gateways and gRPC clients, and of the requests that gateways answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from adsum.dialects.xds.xds import Xds


def metrics(xds: Xds) -> Iterable[Metric]:
    """Yields the metrics of streams, responses and rejections, and of the requests and tries that gateways report."""
    streams = xds.streams
    programs = GaugeMetricFamily("adsum_xds_streams", "Open streams of gateways and gRPC clients", labels=["program"])
    for program, count in sorted(streams.count_by_program().items()):
        programs.add_metric([program], count)
    yield programs
    rejections = CounterMetricFamily("adsum_xds_rejections", "Responses that clients rejected", labels=["kind"])
    for kind, count in sorted(streams.rejections.count.items()):
        rejections.add_metric([kind], count)
    yield rejections
    refusals = CounterMetricFamily("adsum_xds_refused", "Streams that this node refused or ended", labels=["code"])
    for code, count in sorted(streams.refusals.count.items()):
        refusals.add_metric([code], count)
    yield refusals
    yield CounterMetricFamily("adsum_xds_responses", "Responses sent to clients", value=streams.responses_sent)
    yield CounterMetricFamily("adsum_xds_shed", "Streams cut off because they did not read", value=streams.shed)
    yield from _answered(xds)
    yield from _tries(xds)


def _answered(xds: Xds) -> Iterable[Metric]:
    everything = "Requests that the gateway answered since its Envoy began, whoever gave the answer"
    requests = CounterMetricFamily("adsum_gateway_requests", everything, labels=["gateway"])
    errors = CounterMetricFamily("adsum_gateway_errors", "Those of them answered with 5xx", labels=["gateway"])
    labels = ["gateway", "service"]
    service_requests = CounterMetricFamily(
        "adsum_gateway_service_requests",
        "Requests that the gateway answered for the service: each once, with the answer that its caller got",
        labels=labels,
    )
    service_errors = CounterMetricFamily(
        "adsum_gateway_service_errors", "Those of them answered with 5xx", labels=labels
    )
    for gateway, service, answered, failed in xds.traffic.counts():
        if service:
            service_requests.add_metric([gateway, service], answered)
            service_errors.add_metric([gateway, service], failed)
        else:
            requests.add_metric([gateway], answered)
            errors.add_metric([gateway], failed)
    yield from (requests, errors, service_requests, service_errors)


def _tries(xds: Xds) -> Iterable[Metric]:
    labels = ["service", "instance"]
    tries = CounterMetricFamily(
        "adsum_instance_tries",
        "Tries that gateways made at the instance: a request tried again counts again, one that found none not at all",
        labels=labels,
    )
    failed = CounterMetricFamily("adsum_instance_tries_failed", "Those of them that failed", labels=labels)
    for key, load in sorted(xds.tries_by_instance(), key=lambda item: item[0]):
        tries.add_metric([*key], load.tries)
        failed.add_metric([*key], load.failed)
    yield from (tries, failed)
