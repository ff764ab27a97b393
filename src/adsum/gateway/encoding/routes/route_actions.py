"""The actions of routes in Envoy's messages: redirects, forwarding, retries, mirrors, hashing and header edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, TrafficSplits, VersionWeights, weighted_clusters
from adsum.gateway.encoding.routes.route_matchers import PathForm
from adsum.gateway.intent.actions import HashPolicy, HeaderEdits, Redirect, RetryOn
from adsum.gateway.intent.matches import MatchKind
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.route_check.availability import active_targets

PREVIOUS_HOSTS_PREDICATE: Final = "envoy.retry_host_predicates.previous_hosts"
MAX_HOST_SELECTION_ATTEMPTS: Final = 10
"""Choices of an instance in which Envoy looks for one that was not tried yet."""
RETRY_BACK_OFF, MAX_RETRY_BACK_OFF = 0.01, 0.1
"""Seconds before a retry. They are short because another instance is usually available at once."""
MIRROR_TIMEOUT: Final = 30.0
"""Seconds after which a mirrored copy is ended if its route has no timeout."""
MILLION: Final = 1_000_000
SPLIT_WEIGHT_SCALE: Final = 10_000
"""The factor of all targets' weights when a target is split between two clusters: it bounds the rounding error."""

_NOT_TRIED_YET: Final = components.RetryPolicy.RetryHostPredicate(
    name=PREVIOUS_HOSTS_PREDICATE, typed_config=messages.any_message(PreviousHostsPredicate())
)
_SET = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_ADD = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_REDIRECT: Final = {
    301: components.RedirectAction.MOVED_PERMANENTLY,
    302: components.RedirectAction.FOUND,
    303: components.RedirectAction.SEE_OTHER,
    307: components.RedirectAction.TEMPORARY_REDIRECT,
    308: components.RedirectAction.PERMANENT_REDIRECT,
}


class RouteTraffic(NamedTuple):
    """Requests that are split alike: gRPC calls alone (`grpc`), or all requests that no entry before takes."""

    splits: TrafficSplits
    grpc: bool = False

    def weights(self, selector: Selector) -> VersionWeights:
        """Returns how these requests are split between the versions of HTTP of the selector's instances."""
        split = self.splits.get(selector.name, ALL_HTTP1)
        return split.calls if self.grpc else split.requests

    def is_empty(self, selector: Selector) -> bool:
        """Returns whether none of the selector's instances takes requests."""
        return self.splits.get(selector.name, ALL_HTTP1).is_empty


def set_redirect(action: Any, redirect: Redirect, path_form: PathForm) -> None:
    """Sets Envoy's action of a redirect."""
    action.response_code = _REDIRECT[redirect.status]
    if redirect.scheme:
        action.scheme_redirect = redirect.scheme
    action.host_redirect = redirect.host
    action.port_redirect = redirect.port or 0
    if redirect.path:
        action.path_redirect = redirect.path
    elif path_form.rewrite:
        action.prefix_rewrite = path_form.rewrite


def set_forwarding(
    action: Any, route: Route, path_form: PathForm, retry_on: Sequence[RetryOn], traffic: RouteTraffic
) -> None:
    """Sets Envoy's action of a route that forwards requests to its targets."""
    _set_clusters(action, route, traffic)
    if path_form.rewrite and route.path.kind is MatchKind.REGEX:
        action.regex_rewrite.pattern.regex = f"^(?:{route.path.value})$"
        action.regex_rewrite.substitution = path_form.rewrite
    elif path_form.rewrite:
        action.prefix_rewrite = path_form.rewrite
    # Envoy's default of 15 s would end streams. Without a timeout, a gRPC caller's deadline holds, however long it is.
    action.timeout.CopyFrom(messages.duration(route.timeout or 0.0))
    if route.timeout is None:
        action.max_stream_duration.grpc_timeout_header_max.CopyFrom(messages.duration(0.0))
    if route.idle_timeout is not None:
        action.idle_timeout.CopyFrom(messages.duration(route.idle_timeout))
    _set_retries(action, route, retry_on)
    if route.mirror is not None and route.mirror.share:
        for cluster, part in weighted_clusters(route.mirror.selector.name, traffic.weights(route.mirror.selector)):
            share = route.mirror.share * part
            _set_mirror(action.request_mirror_policies.add(), cluster, share, route.timeout or MIRROR_TIMEOUT)
    if route.hash is not None:
        _set_hash(action.hash_policy.add(), route.hash)


def _set_clusters(action: Any, route: Route, traffic: RouteTraffic) -> None:
    split = [(target, traffic.weights(target.selector)) for target in active_targets(route.to, traffic.is_empty)]
    scale = SPLIT_WEIGHT_SCALE if any(all(weights) for _, weights in split) else 1
    weighted = [
        (cluster, max(1, round(target.weight * scale * part)))
        for target, weights in split
        for cluster, part in weighted_clusters(target.selector.name, weights)
    ]
    if len(weighted) == 1:
        ((action.cluster, _),) = weighted
        return
    for cluster, weight in weighted:
        action.weighted_clusters.clusters.add(name=cluster).weight.value = weight
    if route.hash is not None:
        # Requests with the same hash go to the same target of a split, too.
        action.weighted_clusters.use_hash_policy.value = True


def _set_retries(action: Any, route: Route, retry_on: Sequence[RetryOn]) -> None:
    if not retry_on:
        return
    policy = action.retry_policy
    policy.retry_on = ",".join(retry_on)
    policy.num_retries.value = route.retries.attempts
    policy.retry_host_predicate.append(_NOT_TRIED_YET)
    policy.host_selection_retry_max_attempts = MAX_HOST_SELECTION_ATTEMPTS
    policy.retry_back_off.base_interval.CopyFrom(messages.duration(RETRY_BACK_OFF))
    policy.retry_back_off.max_interval.CopyFrom(messages.duration(MAX_RETRY_BACK_OFF))
    if route.try_timeout is not None:
        policy.per_try_timeout.CopyFrom(messages.duration(route.try_timeout))


def _set_mirror(policy: Any, cluster: str, share: float, timeout: float) -> None:
    policy.cluster = cluster
    # Envoy gives a copy the route's timeout, and no timeout if the route has none. Only Envoy itself reads this header.
    limit = policy.request_headers_mutations.add().append
    limit.header.key, limit.header.value = "x-envoy-upstream-rq-timeout-ms", f"{round(timeout * 1000)}"
    limit.append_action = _SET
    policy.disable_shadow_host_suffix_append = True
    policy.runtime_fraction.default_value.numerator = round(share * MILLION)
    policy.runtime_fraction.default_value.denominator = policy.runtime_fraction.default_value.MILLION


def _set_hash(policy: Any, hash: HashPolicy) -> None:
    if hash.header:
        policy.header.header_name = hash.header
    else:
        policy.cookie.name = hash.cookie
        policy.cookie.path = "/"
        policy.cookie.ttl.CopyFrom(messages.duration(hash.ttl))


def add_header_edits(edits: HeaderEdits, to_add: Any, to_remove: Any) -> None:
    """Adds header edits to Envoy's lists of headers to add and to remove."""
    for action, pairs in ((_SET, edits.set), (_ADD, edits.add)):
        for name, value in sorted(pairs.items()):
            option = to_add.add(append_action=action, keep_empty_value=True)
            option.header.key = name
            option.header.value = value.replace("%", "%%")  # A single % starts one of Envoy's command operators.
    to_remove.extend(edits.remove)


def add_vary_by_origin(to_add: Any) -> None:
    """Adds `Vary: Origin`, so that caches do not answer an origin with the response for another one."""
    option = to_add.add(append_action=_ADD)
    option.header.key, option.header.value = "vary", "Origin"
