"""The HTTP filters of a gateway. All but the router are disabled; a route enables those that it needs.

All of them are always present, so a change of routes leaves the listener unchanged and drains no connection. A request
costs time only for the filters of its route.

The buckets of rate limits are sent separately from the routes. Envoy recreates everything in a route configuration,
with full buckets, whenever any route or service comes or goes. It recreates separate buckets only when a rate limit
changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import RuntimeFractionalPercent
from envoy.config.core.v3.config_source_pb2 import ExtensionConfigSource
from envoy.config.route.v3.route_components_pb2 import FilterConfig
from envoy.extensions.filters.http.buffer.v3.buffer_pb2 import Buffer, BufferPerRoute
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2 import LocalRateLimit
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.wrappers_pb2 import UInt32Value

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.messages import METADATA_NAMESPACE
from adsum.gateway.intent.actions import RateLimit
from adsum.gateway.intent.cors import Cors, subdomain_regex
from adsum.gateway.intent.routes import Route

CORS_FILTER: Final = "envoy.filters.http.cors"
RATE_LIMIT_FILTER: Final = "envoy.filters.http.local_ratelimit"
BUFFER_FILTER: Final = "envoy.filters.http.buffer"
ROUTER_FILTER: Final = "envoy.filters.http.router"
RATE_LIMIT_KEY: Final = "route"
"""The descriptor key whose value is the route in whose bucket a request is counted."""
_ENABLED: Final = FilterConfig()
_ENABLED.config.SetInParent()  # An empty configuration enables the filter as it is configured in the chain.

_ALWAYS: Final = RuntimeFractionalPercent()
_ALWAYS.default_value.numerator = 100


def chain() -> Iterator[Any]:
    """Yields the filters in the order in which requests pass them."""
    yield HttpFilter(name=CORS_FILTER, typed_config=messages.any_message(cors_pb2.Cors()), disabled=True)
    yield HttpFilter(name=RATE_LIMIT_FILTER, config_discovery=_discovered(_no_limit()), disabled=True)
    # This limit never applies: every route that enables the filter sets its own limit.
    buffer = Buffer(max_request_bytes=UInt32Value(value=1))
    yield HttpFilter(name=BUFFER_FILTER, typed_config=messages.any_message(buffer), disabled=True)
    yield HttpFilter(name=ROUTER_FILTER, typed_config=messages.any_message(Router()))


def for_route(route: Route) -> Iterator[tuple[str, Any]]:
    """Yields the names and configurations of the filters that the route enables."""
    if route.cors is not None:
        yield CORS_FILTER, messages.any_message(_cors_policy(route.cors))
    if route.rate_limit is not None:
        yield RATE_LIMIT_FILTER, messages.any_message(_ENABLED)
    if route.max_body is not None:
        buffer = Buffer(max_request_bytes=UInt32Value(value=route.max_body))
        yield BUFFER_FILTER, messages.any_message(BufferPerRoute(buffer=buffer))


def rate_limit_buckets(routes: Iterable[Route]) -> Any:
    """Returns the filter configuration with the buckets: one for each route with a rate limit, for all its hosts."""
    config = _no_limit()
    action = config.rate_limits.add().actions.add().metadata
    action.descriptor_key, action.source, action.skip_if_absent = RATE_LIMIT_KEY, action.ROUTE_ENTRY, True
    action.metadata_key.key = METADATA_NAMESPACE
    action.metadata_key.path.add(key=RATE_LIMIT_KEY)
    for route in sorted(routes, key=lambda route: route.name):
        if route.rate_limit is not None:
            descriptor = config.descriptors.add()
            descriptor.entries.add(key=RATE_LIMIT_KEY, value=route.name)
            _set_bucket(descriptor.token_bucket, route.rate_limit)
    return messages.extension(RATE_LIMIT_FILTER, config)


def count_in_bucket(entry: Any, route: Route) -> None:
    """Makes Envoy count the requests of a route entry in the bucket of its route, which all its entries share."""
    if route.rate_limit is not None:
        entry.metadata.filter_metadata[METADATA_NAMESPACE].update({RATE_LIMIT_KEY: route.name})


def _discovered(default: Any) -> Any:
    """Returns a configuration that is discovered by the filter's name, with a default until it arrives."""
    source = ExtensionConfigSource(config_source=messages.ads_source(), default_config=messages.any_message(default))
    source.type_urls.append(source.default_config.type_url)
    return source


def _no_limit() -> Any:
    """Returns a configuration without buckets of routes, in which no request is limited."""
    config = LocalRateLimit(stat_prefix="gateway", filter_enabled=_ALWAYS, filter_enforced=_ALWAYS)
    # The bucket of requests without a rate limit never runs empty.
    config.token_bucket.max_tokens = 2**32 - 1
    config.token_bucket.tokens_per_fill.value = 2**32 - 1
    config.token_bucket.fill_interval.CopyFrom(messages.duration(0.05))
    return config


def _set_bucket(bucket: Any, limit: RateLimit) -> None:
    bucket.max_tokens = limit.burst or limit.requests
    bucket.tokens_per_fill.value = limit.requests
    bucket.fill_interval.CopyFrom(messages.duration(limit.per))


def _cors_policy(cors: Cors) -> Any:
    policy = cors_pb2.CorsPolicy(
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.expose),
        max_age=str(round(cors.max_age)),
        filter_enabled=_ALWAYS,
    )
    policy.allow_credentials.value = cors.credentials
    for origin in cors.origins:
        scheme, wildcard, domain = origin.partition("*.")
        if wildcard:
            policy.allow_origin_string_match.add().safe_regex.regex = subdomain_regex(scheme, domain)
        else:
            policy.allow_origin_string_match.add().exact = origin
    return policy
