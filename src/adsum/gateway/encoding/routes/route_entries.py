"""A route as Envoy's routes: one or a few, because Envoy's matches and retries say less at once than ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, TrafficSplits, VersionWeights, weighted_clusters
from adsum.gateway.encoding.listeners import http_filters
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import IDEMPOTENT_METHODS, HashPolicy, HeaderEdits, Redirect, RetryOn
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.route_check.availability import active_targets

PREVIOUS_HOSTS_PREDICATE: Final = "envoy.retry_host_predicates.previous_hosts"
MAX_HOST_SELECTION_ATTEMPTS: Final = 10
"""How often another instance than those already tried is looked for."""
RETRY_BACK_OFF, MAX_RETRY_BACK_OFF = 0.01, 0.1
"""Seconds before a retry: another instance is there at once, and all of them seldom for long."""
MIRROR_TIMEOUT: Final = 30.0
"""Seconds that a mirrored copy may take, if its route has no timeout; then it is ended. Nobody waits for its answer."""
MILLION: Final = 1_000_000
SPLIT_WEIGHT_SCALE: Final = 10_000
"""By this a target's weight is multiplied where it is shared between clusters: so fine is their share."""

_OTHER_HOST: Final = components.RetryPolicy.RetryHostPredicate(
    name=PREVIOUS_HOSTS_PREDICATE, typed_config=messages.any_message(PreviousHostsPredicate())
)
_Set = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_Add = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_REDIRECT: Final = {
    301: components.RedirectAction.MOVED_PERMANENTLY,
    302: components.RedirectAction.FOUND,
    303: components.RedirectAction.SEE_OTHER,
    307: components.RedirectAction.TEMPORARY_REDIRECT,
    308: components.RedirectAction.PERMANENT_REDIRECT,
}


class _Way(NamedTuple):
    """One of Envoy's conditions on the path, and what it puts in place of what that matched ("": nothing)."""

    condition: Mapping[str, Any]
    rewrite: str = ""


class _Methods(NamedTuple):
    """Some methods (none: all that are left), and what requests with them are retried after."""

    methods: Sequence[str]
    on: Sequence[RetryOn]


class _Traffic(NamedTuple):
    """Requests that are shared alike: gRPC's `calls` alone, or all that are left."""

    splits: TrafficSplits
    calls: bool = False

    def shares(self, to: Selector) -> VersionWeights:
        """How they are shared between those instances."""
        split = self.splits.get(to.name, ALL_HTTP1)
        return split.calls if self.calls else split.requests

    def is_empty(self, to: Selector) -> bool:
        """Whether none of those instances takes requests."""
        return self.splits.get(to.name, ALL_HTTP1).is_empty


def route_entries(route: Route, splits: TrafficSplits) -> Iterator[Any]:
    """Envoy's routes for a route, in the order in which they must stand.

    `splits` tells of selectors by name how requests are shared; what is missing there speaks HTTP/1.1.
    """
    replacement = route.redirect.prefix if route.redirect is not None else route.rewrite or ""
    for way in _ways(route, replacement):
        for methods in _methods(route):
            for traffic in _traffic(route, splits):
                yield _entry(route, way, _conditions(route.headers, methods.methods), methods.on, traffic)
        if route.cors is not None:
            yield _entry(route, way, _preflight(route), (), _Traffic(splits))


def _ways(route: Route, replacement: str) -> Iterator[_Way]:
    path = route.path
    if path.kind is MatchKind.REGEX:
        yield _Way({"safe_regex": {"regex": path.value}}, replacement)
    elif path.kind is MatchKind.EXACT:
        yield _Way({"path": path.value}, replacement)
    elif not path.stem:
        yield _Way({"prefix": "/"}, replacement and replacement.removesuffix("/") + "/")
    else:
        # Compared as text, the two cost Envoy less than a prefix by segments, and a slash is neither doubled nor lost.
        yield _Way({"prefix": path.stem + "/"}, replacement and replacement.removesuffix("/") + "/")
        yield _Way({"path": path.stem}, replacement)


def _methods(route: Route) -> Iterator[_Methods]:
    always = route.retries.conditions(idempotent=False)
    failed = route.retries.conditions(idempotent=True)
    safe = [method for method in route.methods or IDEMPOTENT_METHODS if method in IDEMPOTENT_METHODS]
    others = [method for method in route.methods if method not in IDEMPOTENT_METHODS]
    if always == failed or route.redirect is not None or not safe:
        yield _Methods(route.methods, always)
    else:
        yield _Methods(safe, failed)
        if others or not route.methods:
            yield _Methods(others, always)


def _traffic(route: Route, splits: TrafficSplits) -> Iterator[_Traffic]:
    """All requests as one, unless gRPC's go to other instances than the rest."""
    calls, others = _Traffic(splits, calls=True), _Traffic(splits)
    if any(calls.shares(to) != others.shares(to) for to in route.selectors):
        yield calls
    yield others


def _conditions(headers: Iterable[HeaderMatch], methods: Sequence[str]) -> list[Any]:
    conditions = [_header(header) for header in headers]
    if methods:
        conditions.append(_one_of(":method", methods))
    return conditions


def _preflight(route: Route) -> list[Any]:
    """A browser's question if the route may be called: it has neither its method nor its headers yet."""
    asked = "access-control-request-method"
    wanted = (
        _one_of(asked, route.methods) if route.methods else components.HeaderMatcher(name=asked, present_match=True)
    )
    return [_one_of(":method", ["OPTIONS"]), components.HeaderMatcher(name="origin", present_match=True), wanted]


def _one_of(name: str, values: Sequence[str]) -> Any:
    matcher = components.HeaderMatcher(name=name)
    if len(values) == 1:
        matcher.string_match.exact = values[0]
    else:
        matcher.string_match.safe_regex.regex = "|".join(map(re.escape, values))
    return matcher


def _header(header: HeaderMatch) -> Any:
    matcher = components.HeaderMatcher(name=header.name, invert_match=header.invert)
    if header.kind is MatchKind.PRESENT:
        matcher.present_match = True
        return matcher
    _compare(matcher.string_match, header.kind, header.value)
    matcher.treat_missing_header_as_empty = header.invert
    return matcher


def _parameter(parameter: QueryMatch) -> Any:
    matcher = components.QueryParameterMatcher(name=parameter.name)
    if parameter.kind is MatchKind.PRESENT:
        matcher.present_match = True
    else:
        _compare(matcher.string_match, parameter.kind, parameter.value)
    return matcher


def _compare(matcher: Any, kind: MatchKind, value: str) -> None:
    if kind is MatchKind.REGEX:
        matcher.safe_regex.regex = value
    elif kind is MatchKind.PREFIX:
        matcher.prefix = value
    else:
        matcher.exact = value


def _entry(route: Route, way: _Way, headers: list[Any], on: Sequence[RetryOn], traffic: _Traffic) -> Any:
    match = components.RouteMatch(headers=headers, query_parameters=map(_parameter, route.query), **way.condition)
    if traffic.calls:
        match.grpc.SetInParent()
    entry = components.Route(name=route.name, match=match)
    if not default_routes.is_default(route):
        # A default route's figures are those of its service's cluster: its own would cost a request 4 % more.
        entry.stat_prefix = route.name
    if route.redirect is not None:
        _redirect(entry.redirect, route.redirect, way)
    else:
        _forward(entry.route, route, way, on, traffic)
    add_header_edits(route.request_headers, entry.request_headers_to_add, entry.request_headers_to_remove)
    add_header_edits(route.response_headers, entry.response_headers_to_add, entry.response_headers_to_remove)
    if route.cors is not None:
        _vary_by_origin(entry)
    if route.retry_body is not None:
        entry.request_body_buffer_limit.value = route.retry_body
    http_filters.count_in_bucket(entry, route)
    for name, config in http_filters.for_route(route):
        entry.typed_per_filter_config[name].CopyFrom(config)
    return entry


def _vary_by_origin(entry: Any) -> None:
    """Keep caches from giving one origin the answer that names another."""
    option = entry.response_headers_to_add.add(append_action=_Add)
    option.header.key, option.header.value = "vary", "Origin"


def _redirect(action: Any, redirect: Redirect, way: _Way) -> None:
    action.response_code = _REDIRECT[redirect.status]
    if redirect.scheme:
        action.scheme_redirect = redirect.scheme
    action.host_redirect = redirect.host
    action.port_redirect = redirect.port or 0
    if redirect.path:
        action.path_redirect = redirect.path
    elif way.rewrite:
        action.prefix_rewrite = way.rewrite


def _forward(action: Any, route: Route, way: _Way, on: Sequence[RetryOn], traffic: _Traffic) -> None:
    _target(action, route, traffic)
    if way.rewrite and route.path.kind is MatchKind.REGEX:
        action.regex_rewrite.pattern.regex = f"^(?:{route.path.value})$"
        action.regex_rewrite.substitution = way.rewrite
    elif way.rewrite:
        action.prefix_rewrite = way.rewrite
    # Envoy's 15 seconds would cut off streams. A gRPC caller's own deadline holds, whatever it is.
    action.timeout.CopyFrom(messages.duration(route.timeout or 0.0))
    if route.timeout is None:
        action.max_stream_duration.grpc_timeout_header_max.CopyFrom(messages.duration(0.0))
    if route.idle_timeout is not None:
        action.idle_timeout.CopyFrom(messages.duration(route.idle_timeout))
    _retry(action, route, on)
    if route.mirror is not None and route.mirror.share:
        for cluster, part in weighted_clusters(route.mirror.selector.name, traffic.shares(route.mirror.selector)):
            share = route.mirror.share * part
            _mirror(action.request_mirror_policies.add(), cluster, share, route.timeout or MIRROR_TIMEOUT)
    if route.hash is not None:
        _hash(action.hash_policy.add(), route.hash)


def _target(action: Any, route: Route, traffic: _Traffic) -> None:
    shared = [(target, traffic.shares(target.selector)) for target in active_targets(route.to, traffic.is_empty)]
    scale = SPLIT_WEIGHT_SCALE if any(all(shares) for _, shares in shared) else 1
    weighted = [
        (cluster, max(1, round(target.weight * scale * part)))
        for target, shares in shared
        for cluster, part in weighted_clusters(target.selector.name, shares)
    ]
    if len(weighted) == 1:
        ((action.cluster, _),) = weighted
        return
    for cluster, weight in weighted:
        action.weighted_clusters.clusters.add(name=cluster).weight.value = weight
    if route.hash is not None:
        # Who is alike stays on the same side of a split, too.
        action.weighted_clusters.use_hash_policy.value = True


def _retry(action: Any, route: Route, on: Sequence[RetryOn]) -> None:
    if not on:
        return
    policy = action.retry_policy
    policy.retry_on = ",".join(on)
    policy.num_retries.value = route.retries.attempts
    policy.retry_host_predicate.append(_OTHER_HOST)
    policy.host_selection_retry_max_attempts = MAX_HOST_SELECTION_ATTEMPTS
    policy.retry_back_off.base_interval.CopyFrom(messages.duration(RETRY_BACK_OFF))
    policy.retry_back_off.max_interval.CopyFrom(messages.duration(MAX_RETRY_BACK_OFF))
    if route.try_timeout is not None:
        policy.per_try_timeout.CopyFrom(messages.duration(route.try_timeout))


def _mirror(policy: Any, cluster: str, share: float, timeout: float) -> None:
    policy.cluster = cluster
    # Envoy gives a copy the route's timeout, and none if the route has none. The header is for Envoy itself.
    limit = policy.request_headers_mutations.add().append
    limit.header.key, limit.header.value = "x-envoy-upstream-rq-timeout-ms", f"{round(timeout * 1000)}"
    limit.append_action = _Set
    policy.disable_shadow_host_suffix_append = True
    policy.runtime_fraction.default_value.numerator = round(share * MILLION)
    policy.runtime_fraction.default_value.denominator = policy.runtime_fraction.default_value.MILLION


def _hash(policy: Any, hash: HashPolicy) -> None:
    if hash.header:
        policy.header.header_name = hash.header
    else:
        policy.cookie.name = hash.cookie
        policy.cookie.path = "/"
        policy.cookie.ttl.CopyFrom(messages.duration(hash.ttl))


def add_header_edits(edits: HeaderEdits, to_add: Any, to_remove: Any) -> None:
    """Envoy's words for changes to headers."""
    for action, pairs in ((_Set, edits.set), (_Add, edits.add)):
        for name, value in sorted(pairs.items()):
            option = to_add.add(append_action=action, keep_empty_value=True)
            option.header.key = name
            option.header.value = value.replace("%", "%%")  # A single one would begin a command of Envoy's.
    to_remove.extend(edits.remove)
