"""The entries of the default routes for all services: one pattern finds any service.

A service that comes or goes therefore changes no route. A Lua script finds the cluster by the name in the path or in
the host. A name without a cluster is answered as if there were no route. The instances of a service can have two
clusters, one for each version of HTTP (see `http_versions`); a service with both has routes of its own. A marker, a
cluster without instances, shows the script that all instances of a service speak HTTP/2. Envoy adds clusters before
routes and removes them after routes, so that the marker exists whenever the script can meet such a service.
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

_PLACEHOLDER: Final = (Target(Selector("any")),)
"""The target in routes whose cluster the script chooses."""
_BY_PATH: Final = Route(
    default_routes.PATH_ROUTE_NAME,
    path=PathMatch(MatchKind.REGEX, "/[a-z0-9-]+(?:/(.*))?"),
    to=_PLACEHOLDER,
    rewrite=r"/\1",
)
_BY_HOST: Final = Route(default_routes.HOST_ROUTE_NAME, to=_PLACEHOLDER)
_NO_CLUSTER: Final = "-"
"""The cluster name for requests that name no service. No cluster has it."""
_SERVICE_PATTERNS: Final = {
    default_routes.PATH_ROUTE_NAME: (":path", "^/([a-z0-9-]+)"),
    default_routes.HOST_ROUTE_NAME: (":authority", "^([a-z0-9-]+)%.localhost%f[:%z]"),
}
"""The header and the Lua pattern that find the name of the service in the header's lower-case value."""
_SCRIPT: Final = """
function envoy_on_route(request)
  local name = string.match(string.lower(request:headers():get("{header}") or ""), "{pattern}")
  if name == nil then return "{no_cluster}" end
  if request:getCluster(name .. "{marker}") == nil then return name end
  return name .. "{http2}"
end
"""


def path_entries() -> bytes:
    """Returns the routes to every service under `/{service}/`, encoded as part of a virtual host."""
    entries = _entries(_BY_PATH)
    for entry in entries:
        option = entry.request_headers_to_add.add(append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
        option.header.key, option.header.value = PREFIX_HEADER, f"/{SERVICE_OPERATOR}"
    return messages.serialize(components.VirtualHost(routes=entries))


def host_entries() -> bytes:
    """Returns the routes to every service on its own host name, encoded as part of a virtual host."""
    return messages.serialize(components.VirtualHost(routes=_entries(_BY_HOST)))


def _entries(route: Route) -> list[Any]:
    entries = list(route_entries(route, {}))
    for entry in entries:
        entry.route.cluster_specifier_plugin = route.name
        entry.route.cluster_not_found_response_code = components.RouteAction.NOT_FOUND
    return entries


def cluster_specifiers() -> Iterator[Any]:
    """Yields the plugins with the scripts that find the clusters."""
    http2 = cluster_name("", HttpVersion.HTTP2)
    for name, (header, pattern) in _SERVICE_PATTERNS.items():
        config = LuaConfig(default_cluster=_NO_CLUSTER)
        config.source_code.inline_string = _SCRIPT.format(
            header=header, pattern=pattern, no_cluster=_NO_CLUSTER, http2=http2, marker=http2_only_marker("")
        )
        yield components.ClusterSpecifierPlugin(extension=messages.extension(name, config))
