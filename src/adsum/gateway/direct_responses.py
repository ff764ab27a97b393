"""Requests that a gateway answers itself, whatever its routes are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.gateway.patterns.path_normalization import has_nul

TRACE_METHOD: Final = "TRACE"
HOST_SEPARATOR: Final = ","
"""Stands in a host only where a request named several, which Envoy joins: a service might read another than a route."""


class DirectResponse(NamedTuple):
    """What a request is answered, why, and with which headers."""

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
    """Why no route is asked about such a request; None: routes are. `path` is without its query."""
    if has_nul(path):
        return ZERO_BYTE_RESPONSE
    if method == TRACE_METHOD:
        return TRACE_RESPONSE
    return SEVERAL_HOSTS_RESPONSE if HOST_SEPARATOR in host else None
