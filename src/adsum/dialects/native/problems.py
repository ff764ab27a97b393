"""The errors of this dialect, and the table from errors to HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from adsum import wire
from adsum.core.errors import (
    AdsumError,
    CatalogFull,
    Forbidden,
    Invalid,
    InvisibleService,
    KeeperUnavailable,
    LeaseLost,
    NameTaken,
    NotOwner,
    Overloaded,
    RegistrationConflict,
    ServiceNotEmpty,
    StoreUnavailable,
    Unauthenticated,
    UnknownDocument,
    UnknownInstance,
)
from adsum.dialects.native.asgi import NO_STORE, ApiReply

PROBLEM_TYPE: Final = (b"content-type", b"application/problem+json")
CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="adsum"')
STOPPING: Final = "the node is stopping"


class MalformedRequest(AdsumError):
    """The request can't be read: invalid JSON, an unknown parameter, an invalid position."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


class UnknownPath(AdsumError):
    """No operation has the path."""


class UnknownWatch(AdsumError):
    """No cooperating watch has that token, or the watch has ended."""


class MethodNotAllowed(AdsumError):
    """The path has operations, but none with the method."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"this path has no {method}; use {' or '.join(allowed)}")
        self.allowed = allowed


class MisdirectedRequest(AdsumError):
    """Another node forwarded the request to a node that is not this one."""


class BodyTooLarge(AdsumError):
    """The body is larger than the operation allows."""


class NotJson(AdsumError):
    """The Content-Type of the body is not JSON."""


class NotReady(AdsumError):
    """The node can't serve the request now: it starts or stops, or it is behind other nodes. Another one may."""

    retry_after = 1.0


class NoAuthority(AdsumError):
    """The registry has no authority of its own that the request needs."""


class NoAuthorityKey(AdsumError):
    """Another node has the key of the registry's authority."""


class WaitEnded(NotReady):
    """The node stops during the wait of a request. Everything before the wait is done."""


STATUSES: Final[Mapping[type[AdsumError], HTTPStatus]] = MappingProxyType(
    {
        MalformedRequest: HTTPStatus.BAD_REQUEST,
        Unauthenticated: HTTPStatus.UNAUTHORIZED,
        Forbidden: HTTPStatus.FORBIDDEN,
        NotOwner: HTTPStatus.FORBIDDEN,
        InvisibleService: HTTPStatus.NOT_FOUND,
        UnknownInstance: HTTPStatus.NOT_FOUND,
        UnknownDocument: HTTPStatus.NOT_FOUND,
        UnknownWatch: HTTPStatus.NOT_FOUND,
        UnknownPath: HTTPStatus.NOT_FOUND,
        MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
        LeaseLost: HTTPStatus.CONFLICT,
        RegistrationConflict: HTTPStatus.CONFLICT,
        ServiceNotEmpty: HTTPStatus.CONFLICT,
        NameTaken: HTTPStatus.CONFLICT,
        NoAuthority: HTTPStatus.CONFLICT,
        BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        NotJson: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        MisdirectedRequest: HTTPStatus.MISDIRECTED_REQUEST,
        Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
        Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
        KeeperUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
        WaitEnded: HTTPStatus.SERVICE_UNAVAILABLE,
        NoAuthorityKey: HTTPStatus.SERVICE_UNAVAILABLE,
        CatalogFull: HTTPStatus.INSUFFICIENT_STORAGE,
    }
)
"""An error that is not in this table is a bug of the registry: 500, with a traceback in the log."""


def problem_reply(error: Exception) -> ApiReply:
    """Returns the response with the problem document (RFC 9457) for an error."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, Unauthenticated):
        headers = (CHALLENGE,)
    elif isinstance(error, MethodNotAllowed):
        headers = ((b"allow", ", ".join(error.allowed).encode()),)
    elif (seconds := retry_after(error)) is not None:
        headers = ((b"retry-after", str(max(1, round(seconds))).encode()),)
    problem = problem_document(error)
    return ApiReply(problem.status, wire.encode(problem), (PROBLEM_TYPE, NO_STORE, *headers))


def problem_document(error: Exception) -> wire.Problem:
    """Returns the problem document (RFC 9457) for an error."""
    status = STATUSES.get(type(error)) if isinstance(error, AdsumError) else None
    if status is None:
        return _problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "the registry failed because of a bug; the log of the node has the details",
        )
    if isinstance(error, Invalid):
        return _problem(status, error.problem, error.field)
    if isinstance(error, MalformedRequest):
        return _problem(status, str(error), error.field)
    if isinstance(error, Unauthenticated | Forbidden | InvisibleService):
        return _problem(status, str(error), reason=error.reason)
    return _problem(status, str(error), "wait" if isinstance(error, WaitEnded) else "")


def retry_after(error: Exception) -> float | None:
    """Returns the seconds after which the same request may succeed; None if it would not."""
    is_known = isinstance(error, AdsumError) and type(error) in STATUSES
    return getattr(error, "retry_after", None) if is_known else None


def _problem(status: HTTPStatus, detail: str, field: str = "", reason: str = "") -> wire.Problem:
    return wire.Problem(title=status.phrase, status=status.value, detail=detail, field=field, reason=reason)
