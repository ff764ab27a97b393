"""What a gateway answers itself: problem documents (RFC 9457) that say which service it was about, and why."""

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
"""Seconds after which a caller may well find what is missing now."""
SERVICE_OPERATOR: Final = "%METADATA(CLUSTER:adsum:service)%"
CAUSE_OPERATOR: Final = "%METADATA(CLUSTER:adsum:cause)%"
"""Why the gateway can't reach a service's instances, where that is known; else nothing."""
LIMITS_OPERATOR: Final = "%METADATA(CLUSTER:adsum:limits)%"
CAUSE_CLAUSE_OPERATOR: Final = "%METADATA(CLUSTER:adsum:clause)%"
"""The same as a further clause of a sentence."""


class _Reply(NamedTuple):
    """What to say when Envoy answers with one of these flags ("Access logging", `%RESPONSE_FLAGS%`), or a status."""

    on: Sequence[str] | int
    title: str
    detail: str
    temporary: bool = False
    reasoned: bool = True
    """Whether Envoy's own reason is added. Of a failed connection it names what stands in certificates."""
    status: int | None = None
    """The status that has to come with one of the flags, if any."""
    routed: bool = True
    """Whether the route that was taken is named."""


_NO_ROUTE: Final = "no route takes this request: `adsum route check` tells why"
_REPLIES: Final = (
    _Reply(("NR",), "No such route", _NO_ROUTE),
    # The default routes of all services find no cluster of that name (see `every_service`).
    _Reply(("NC",), "No such route", _NO_ROUTE, reasoned=False, status=404, routed=False),
    _Reply(("NC",), "Service unknown", "the route leads to a service that the gateway does not know yet", True),
    _Reply(("UH",), "No healthy instance", f"no instance of {SERVICE_OPERATOR} can take requests now", True),
    _Reply(
        ("UO",),
        "Too many requests",
        f"the gateway holds as many requests for {SERVICE_OPERATOR} as a limit of its upstream allows: {LIMITS_OPERATOR}",
        True,
    ),
    _Reply(("UT",), "Timed out", f"{SERVICE_OPERATOR} did not answer within the route's time"),
    _Reply(("SI", "DT"), "Timed out", f"nothing moved between the caller and {SERVICE_OPERATOR} for as long as may be"),
    _Reply(
        ("UPE",),
        "Answer not understood",
        f"an instance of {SERVICE_OPERATOR} answered what is not HTTP, or with more headers than fit (100, of 60 KiB in all)",
    ),
    _Reply(
        ("UF",),
        "Instance unreachable",
        f"the instances of {SERVICE_OPERATOR} that were tried can't be reached",
        True,
        False,
    ),
    _Reply(
        ("UC", "UR", "LR"),
        "Connection lost",
        f"an instance of {SERVICE_OPERATOR} broke off before its answer was complete",
    ),
    _Reply(
        ("URX",),
        "Instance unreachable",
        f"the instances of {SERVICE_OPERATOR} that were tried can't be reached",
        True,
        False,
    ),
    _Reply(
        400,
        "Malformed request",
        "a request must name one host, be in ASCII but for its body, with all else percent-encoded in its path and no "
        "zero byte there, and say one length of its body",
    ),
    _Reply(405, "Method not allowed", "%LOCAL_REPLY_BODY%"),
    _Reply(431, "Headers too large", "a request may have at most 100 headers, of 60 KiB in all with its path"),
    _Reply(413, "Body too large", "the route takes no body of that size"),
    _Reply(429, "Rate limited", "the route takes no more requests now", True),
)
"""The first that fits is said."""
_OTHER: Final = _Reply(400, "Refused", "the gateway refuses this request: %RESPONSE_CODE_DETAILS%")
"""Every other error, from this status on."""


def local_replies() -> Any:
    """How Envoy's own answers are turned into problem documents, and for gRPC callers into a sentence."""
    config = LocalReplyConfig()
    for reply in (*_REPLIES, _OTHER):
        config.mappers.append(_mapper(reply, _both(_when(reply), _from_grpc()), _sentence(reply)))
        config.mappers.append(_mapper(reply, _when(reply), _document(reply)))
    return config


def _mapper(reply: _Reply, when: Any, body: Any) -> Any:
    mapper = ResponseMapper(filter=when, body_format_override=body)
    if reply.temporary:
        option = mapper.headers_to_add.add()
        option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD
        option.header.key, option.header.value = "retry-after", RETRY_AFTER_SECONDS
    return mapper


def _when(reply: _Reply) -> Any:
    if isinstance(reply.on, int):
        return _status(ComparisonFilter.GE if reply is _OTHER else ComparisonFilter.EQ, reply.on)
    flags = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=reply.on))
    return flags if reply.status is None else _both(flags, _status(ComparisonFilter.EQ, reply.status))


def _from_grpc() -> Any:
    """Who calls with gRPC reads the body as a status' message."""
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


def _document(reply: _Reply) -> Any:
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
    if reply.routed:
        fields["route"] = "%ROUTE_NAME%"
    if reply.reasoned:
        fields["reason"] = "%RESPONSE_CODE_DETAILS%"
    body.json_format.update(fields)
    return body
