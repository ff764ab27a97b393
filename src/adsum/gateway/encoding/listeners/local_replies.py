"""The local replies of a gateway: problem documents (RFC 9457) with the service and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    HeaderFilter,
    ResponseFlagFilter,
)
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    LocalReplyConfig,
    ResponseMapper,
)

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = "1"
"""Seconds after which a caller should retry after a temporary error (the header Retry-After)."""
SERVICE_OPERATOR: Final = "%METADATA(CLUSTER:adsum:service)%"
CAUSE_OPERATOR: Final = "%METADATA(CLUSTER:adsum:cause)%"
"""The cause why the gateway can't reach a service's instances; empty if it knows none."""
LIMITS_OPERATOR: Final = "%METADATA(CLUSTER:adsum:limits)%"
CAUSE_CLAUSE_OPERATOR: Final = "%METADATA(CLUSTER:adsum:clause)%"
"""The cause as a clause that follows a sentence: it begins with a semicolon."""


class _Reply(NamedTuple):
    """The text of a local reply."""

    on: Sequence[str] | int
    """The response flags, of which one must occur (Envoy's "Access logging", `%RESPONSE_FLAGS%`), or the status."""
    title: str
    detail: str
    is_temporary: bool = False
    has_reason: bool = True
    """The document includes Envoy's own reason. For a failed connection, that can contain texts from certificates."""
    status: int | None = None
    """A status that must occur together with one of the flags."""
    has_route: bool = True
    """The document includes the name of the route."""


_NO_ROUTE: Final = "no route takes this request; `adsum route check` shows why"
_REPLIES: Final = (
    _Reply(("NR",), "No such route", _NO_ROUTE),
    # The default routes for all services found no cluster of that name (see `default_entries`).
    _Reply(("NC",), "No such route", _NO_ROUTE, has_reason=False, status=404, has_route=False),
    _Reply(("NC",), "Service unknown", "the gateway does not know the service of this route yet", is_temporary=True),
    _Reply(
        ("UH",), "No healthy instance", f"no instance of {SERVICE_OPERATOR} can take requests now", is_temporary=True
    ),
    _Reply(
        ("UO",),
        "Too many requests",
        f"the gateway has reached a limit of the upstream {SERVICE_OPERATOR}, one of: {LIMITS_OPERATOR}",
        is_temporary=True,
    ),
    _Reply(("UT",), "Timed out", f"{SERVICE_OPERATOR} did not answer within the route's timeout"),
    _Reply(
        ("SI", "DT"),
        "Timed out",
        f"no bytes moved between the caller and {SERVICE_OPERATOR} within the idle timeout",
    ),
    _Reply(
        ("UPE",),
        "Invalid response",
        f"an instance of {SERVICE_OPERATOR} sent a response that is not HTTP or has over 100 headers or 60 KiB of them",
    ),
    _Reply(
        ("UF",),
        "Instance unreachable",
        f"the instances of {SERVICE_OPERATOR} that were tried can't be reached",
        is_temporary=True,
        has_reason=False,
    ),
    _Reply(
        ("UC", "UR", "LR"),
        "Connection lost",
        f"an instance of {SERVICE_OPERATOR} closed the connection before its response was complete",
    ),
    _Reply(
        ("URX",),
        "Instance unreachable",
        f"the instances of {SERVICE_OPERATOR} that were tried can't be reached",
        is_temporary=True,
        has_reason=False,
    ),
    _Reply(
        400,
        "Malformed request",
        "a request must have one host and one length of its body; everything but the body must be ASCII; other "
        "characters in the path must be percent-encoded, and the path may not have a zero byte",
    ),
    _Reply(405, "Method not allowed", "%LOCAL_REPLY_BODY%"),
    _Reply(431, "Headers too large", "a request may have at most 100 headers, and 60 KiB of headers and path"),
    _Reply(413, "Body too large", "the body is larger than the route's max_body"),
    _Reply(429, "Rate limited", "the route's rate limit is used up", is_temporary=True),
)
"""The first reply that matches is used."""
_OTHER: Final = _Reply(400, "Refused", "the gateway refuses this request: %RESPONSE_CODE_DETAILS%")
"""The reply to every other error with this status or a higher one."""


def local_replies() -> Any:
    """Returns the configuration that turns Envoy's local replies into problem documents; for gRPC, into a sentence."""
    config = LocalReplyConfig()
    for reply in (*_REPLIES, _OTHER):
        config.mappers.append(_mapper(reply, _both(_condition(reply), _from_grpc()), _sentence(reply)))
        config.mappers.append(_mapper(reply, _condition(reply), _problem_document(reply)))
    return config


def _mapper(reply: _Reply, condition: Any, body: Any) -> Any:
    mapper = ResponseMapper(filter=condition, body_format_override=body)
    if reply.is_temporary:
        option = mapper.headers_to_add.add()
        option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD
        option.header.key, option.header.value = "retry-after", RETRY_AFTER_SECONDS
    return mapper


def _condition(reply: _Reply) -> Any:
    if isinstance(reply.on, int):
        return _status(ComparisonFilter.GE if reply is _OTHER else ComparisonFilter.EQ, reply.on)
    flags = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=reply.on))
    return flags if reply.status is None else _both(flags, _status(ComparisonFilter.EQ, reply.status))


def _from_grpc() -> Any:
    """Returns the condition that the caller uses gRPC, which reads the body as the message of its status."""
    kind = HeaderMatcher(name="content-type")
    kind.string_match.prefix = "application/grpc"
    return AccessLogFilter(header_filter=HeaderFilter(header=kind))


def _both(one: Any, other: Any) -> Any:
    return AccessLogFilter(and_filter=AndFilter(filters=[one, other]))


def _status(comparison: Any, status: int) -> Any:
    filter = AccessLogFilter()
    filter.status_code_filter.comparison.op = comparison
    filter.status_code_filter.comparison.value.default_value = status
    filter.status_code_filter.comparison.value.runtime_key = f"gateway.status.{status}"
    return filter


def _sentence(reply: _Reply) -> Any:
    body = SubstitutionFormatString(omit_empty_values=True)
    body.text_format_source.inline_string = f"{reply.title}: {reply.detail}{CAUSE_CLAUSE_OPERATOR}"
    return body


def _problem_document(reply: _Reply) -> Any:
    body = SubstitutionFormatString(content_type=CONTENT_TYPE, omit_empty_values=True)
    fields = {
        "type": "about:blank",
        "title": reply.title,
        "status": "%RESPONSE_CODE%",
        "detail": reply.detail,
        "cause": CAUSE_OPERATOR,
        "service": SERVICE_OPERATOR,
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    if reply.has_route:
        fields["route"] = "%ROUTE_NAME%"
    if reply.has_reason:
        fields["reason"] = "%RESPONSE_CODE_DETAILS%"
    body.json_format.update(fields)
    return body
