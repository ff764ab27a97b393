"""Requests that a gateway answers itself, whatever its routes are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.gateway.patterns.path_normalization import has_nul

TRACE: Final = "TRACE"
HOSTS: Final = ","
"""Stands in a host only where a request named several, which Envoy joins: a service might read another than a route."""


class Refusal(NamedTuple):
    """What a request is answered, why, and with which headers."""

    status: int
    why: str
    headers: Mapping[str, str] = MappingProxyType({})


NO_TRACE: Final = Refusal(
    405,
    "TRACE would show a caller what the gateway and others add to its request",
    MappingProxyType({"allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}),
)
SEVERAL_HOSTS: Final = Refusal(400, "a request must name one host")
ZERO_BYTE: Final = Refusal(400, "a path may not have a zero byte (%00)")


def refusal(method: str, host: str, path: str) -> Refusal | None:
    """Why no route is asked about such a request; None: routes are. `path` is without its query."""
    if has_nul(path):
        return ZERO_BYTE
    if method == TRACE:
        return NO_TRACE
    return SEVERAL_HOSTS if HOSTS in host else None
