"""Errors that end a stream, each with a gRPC status."""

from __future__ import annotations

from adsum.core.errors import AdsumError


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
    return error.code if isinstance(error, StreamRefused) else "RESOURCE_EXHAUSTED"
