"""Requests that a gateway refuses with a response of its own before it matches routes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.gateway.patterns.path_normalization import has_nul

TRACE_METHOD: Final = "TRACE"
HOST_SEPARATOR: Final = ","
"""Occurs in a host only when a request had several Host headers, which Envoy joins. Such a request is refused because
the service might use another of the hosts than the route did."""


class DirectResponse(NamedTuple):
    """A response of the gateway itself: its status, the reason for it, and its headers."""

    status: int
    reason: str
    headers: Mapping[str, str] = MappingProxyType({})


TRACE_RESPONSE: Final = DirectResponse(
    405,
    "TRACE would show a caller what the gateway and others add to its request",
    MappingProxyType({"allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}),
)
SEVERAL_HOSTS_RESPONSE: Final = DirectResponse(400, "a request must name one host")
ZERO_BYTE_RESPONSE: Final = DirectResponse(400, "a path may not have a zero byte (%00)")


def direct_response(method: str, host: str, path: str) -> DirectResponse | None:
    """Returns the gateway's own response to the request, or None if its routes decide. `path` is without its query."""
    if has_nul(path):
        return ZERO_BYTE_RESPONSE
    if method == TRACE_METHOD:
        return TRACE_RESPONSE
    return SEVERAL_HOSTS_RESPONSE if HOST_SEPARATOR in host else None
