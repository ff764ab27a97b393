"""Errors that end a stream, each with a gRPC status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from adsum.core.errors import AdsumError, Forbidden, InvisibleService, StoreUnavailable, Unauthenticated

STATUSES: Final[Mapping[type[AdsumError], str]] = MappingProxyType(
    {
        Unauthenticated: "UNAUTHENTICATED",
        Forbidden: "PERMISSION_DENIED",
        InvisibleService: "NOT_FOUND",
        StoreUnavailable: "UNAVAILABLE",
    }
)
"""Error → gRPC status. Other errors on purpose mean that a bound leaves no room: RESOURCE_EXHAUSTED."""


class StreamRefused(AdsumError):
    """Ends a stream; `code` is the name of the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid_argument(message: str) -> StreamRefused:
    """Returns the error for a peer that sends what the protocol or a bound does not allow."""
    return StreamRefused("INVALID_ARGUMENT", message)


def resource_exhausted(message: str) -> StreamRefused:
    """Returns the error for a peer that a bound leaves no room for."""
    return StreamRefused("RESOURCE_EXHAUSTED", message)


def grpc_status(error: AdsumError) -> str:
    """Returns the name of the gRPC status with which this error ends a stream."""
    if isinstance(error, StreamRefused):
        return error.code
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), "RESOURCE_EXHAUSTED")
