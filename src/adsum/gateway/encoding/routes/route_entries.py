"""The entries of a route in Envoy's route table.

A route has one or a few entries, because one of Envoy's matches or retry policies expresses less than one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as components

from adsum.gateway.encoding.clusters.http_versions import TrafficSplits
from adsum.gateway.encoding.listeners import http_filters
from adsum.gateway.encoding.routes import route_actions, route_matchers
from adsum.gateway.encoding.routes.route_actions import RouteTraffic
from adsum.gateway.encoding.routes.route_matchers import PathForm
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import IDEMPOTENT_METHODS, RetryOn
from adsum.gateway.intent.routes import Route


class _MethodGroup(NamedTuple):
    """Methods (none: all that no entry before takes), and the outcomes after which their requests are retried."""

    methods: Sequence[str]
    retry_on: Sequence[RetryOn]


def route_entries(route: Route, splits: TrafficSplits) -> Iterator[Any]:
    """Yields Envoy's routes for a route, in the order that they need.

    `splits` has the traffic splits by the names of selectors; a selector that is missing speaks HTTP/1.1.
    """
    replacement = route.redirect.prefix if route.redirect is not None else route.rewrite or ""
    for path_form in route_matchers.path_forms(route, replacement):
        for group in _method_groups(route):
            for traffic in _traffic(route, splits):
                headers = route_matchers.header_matchers(route.headers, group.methods)
                yield _entry(route, path_form, headers, group.retry_on, traffic)
        if route.cors is not None:
            yield _entry(route, path_form, route_matchers.preflight_matchers(route), (), RouteTraffic(splits))


def _method_groups(route: Route) -> Iterator[_MethodGroup]:
    others_retry_on = route.retries.conditions(idempotent=False)
    idempotent_retry_on = route.retries.conditions(idempotent=True)
    idempotent = [method for method in route.methods or IDEMPOTENT_METHODS if method in IDEMPOTENT_METHODS]
    others = [method for method in route.methods if method not in IDEMPOTENT_METHODS]
    if others_retry_on == idempotent_retry_on or route.redirect is not None or not idempotent:
        yield _MethodGroup(route.methods, others_retry_on)
    else:
        yield _MethodGroup(idempotent, idempotent_retry_on)
        if others or not route.methods:
            yield _MethodGroup(others, others_retry_on)


def _traffic(route: Route, splits: TrafficSplits) -> Iterator[RouteTraffic]:
    """Yields gRPC calls first if they are split differently from other requests, and then all requests."""
    calls, requests = RouteTraffic(splits, grpc=True), RouteTraffic(splits)
    if any(calls.weights(selector) != requests.weights(selector) for selector in route.selectors):
        yield calls
    yield requests


def _entry(
    route: Route, path_form: PathForm, headers: list[Any], retry_on: Sequence[RetryOn], traffic: RouteTraffic
) -> Any:
    match = components.RouteMatch(
        headers=headers, query_parameters=route_matchers.query_matchers(route.query), **path_form.condition
    )
    if traffic.grpc:
        match.grpc.SetInParent()
    entry = components.Route(name=route.name, match=match)
    if not default_routes.is_default(route):
        # A default route has the metrics of its service's cluster: metrics of its own would cost a request 4 % more.
        entry.stat_prefix = route.name
    if route.redirect is not None:
        route_actions.set_redirect(entry.redirect, route.redirect, path_form)
    else:
        route_actions.set_forwarding(entry.route, route, path_form, retry_on, traffic)
    route_actions.add_header_edits(route.request_headers, entry.request_headers_to_add, entry.request_headers_to_remove)
    route_actions.add_header_edits(
        route.response_headers, entry.response_headers_to_add, entry.response_headers_to_remove
    )
    if route.cors is not None:
        route_actions.add_vary_by_origin(entry.response_headers_to_add)
    if route.retry_body is not None:
        entry.request_body_buffer_limit.value = route.retry_body
    http_filters.count_in_bucket(entry, route)
    for name, config in http_filters.for_route(route):
        entry.typed_per_filter_config[name].CopyFrom(config)
    return entry
