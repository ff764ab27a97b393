"""Default routes as Envoy's: one pattern for all services, so that a service that comes or goes changes no route.

A script finds the cluster by the name in the path or in the host. A name that the gateway has no cluster of is answered
as if there were no route. The instances of a service can be shared between two clusters, by the version of HTTP that
they speak (see `versions`); a service that has both has routes of its own. A cluster without instances marks a service
that speaks HTTP/2 alone: clusters come before routes and go after them, so that the mark stands for as long as the
script is asked about such a service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.extensions.router.cluster_specifiers.lua.v3.lua_pb2 import LuaConfig

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters.http_versions import HttpVersion, cluster_name, http2_only_marker
from adsum.gateway.encoding.listeners.local_replies import SERVICE_OPERATOR
from adsum.gateway.encoding.routes.route_entries import route_entries
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.default_routes import PREFIX_HEADER
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector

_ANY: Final = (Target(Selector("any")),)
"""Stands where a route names its target; the script chooses in its place."""
_BY_PATH: Final = Route(
    default_routes.PATH_ROUTE_NAME, path=PathMatch(MatchKind.REGEX, "/[a-z0-9-]+(?:/(.*))?"), to=_ANY, rewrite=r"/\1"
)
_BY_HOST: Final = Route(default_routes.HOST_ROUTE_NAME, to=_ANY)
_NONE: Final = "-"
"""The cluster of requests that name no service: there is none of that name."""
_NAMED_BY: Final = {
    default_routes.PATH_ROUTE_NAME: (":path", "^/([a-z0-9-]+)"),
    default_routes.HOST_ROUTE_NAME: (":authority", "^([a-z0-9-]+)%.localhost%f[:%z]"),
}
"""The header, in lower case, and the pattern that find the name of the service."""
_SCRIPT: Final = """
function envoy_on_route(request)
  local name = string.match(string.lower(request:headers():get("{header}") or ""), "{pattern}")
  if name == nil then return "{none}" end
  if request:getCluster(name .. "{sole}") == nil then return name end
  return name .. "{http2}"
end
"""


def path_entries() -> bytes:
    """Every service under `/{service}/`, as routes of a virtual host."""
    made = _entries(_BY_PATH)
    for entry in made:
        option = entry.request_headers_to_add.add(append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
        option.header.key, option.header.value = PREFIX_HEADER, f"/{SERVICE_OPERATOR}"
    return messages.serialize(components.VirtualHost(routes=made))


def host_entries() -> bytes:
    """Every service on its own host name, as routes of a virtual host."""
    return messages.serialize(components.VirtualHost(routes=_entries(_BY_HOST)))


def _entries(route: Route) -> list[Any]:
    made = list(route_entries(route, {}))
    for entry in made:
        entry.route.cluster_specifier_plugin = route.name
        entry.route.cluster_not_found_response_code = components.RouteAction.NOT_FOUND
    return made


def cluster_specifiers() -> Iterator[Any]:
    """What finds the clusters, for a route configuration."""
    http2 = cluster_name("", HttpVersion.HTTP2)
    for name, (header, pattern) in _NAMED_BY.items():
        config = LuaConfig(default_cluster=_NONE)
        config.source_code.inline_string = _SCRIPT.format(
            header=header, pattern=pattern, none=_NONE, http2=http2, sole=http2_only_marker("")
        )
        yield components.ClusterSpecifierPlugin(extension=messages.extension(name, config))
