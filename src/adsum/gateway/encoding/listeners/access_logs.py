"""The access log of a gateway: one line for each request, on its standard output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from envoy.extensions.access_loggers.stream.v3.stream_pb2 import StdoutAccessLog

from adsum.gateway.encoding import messages

_FIELDS: Final = {
    "at": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "reason": "%RESPONSE_CODE_DETAILS%",
    "route": "%ROUTE_NAME%",
    "service": "%METADATA(CLUSTER:adsum:service)%",
    "instance": "%METADATA(UPSTREAM_HOST:adsum:id)%",
    "address": "%UPSTREAM_HOST%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "milliseconds": "%DURATION%",
    "first_byte_milliseconds": "%RESPONSE_DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "caller": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
}
_TEXT: Final = (
    "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(:METHOD)% %REQ(:AUTHORITY)%"
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_SENT% B %DURATION% ms"
    " %ROUTE_NAME% %METADATA(UPSTREAM_HOST:adsum:id)% %UPSTREAM_HOST% %REQ(X-REQUEST-ID)%\n"
)


def access_logs(format: str) -> Iterator[Any]:
    """Yields the access log in that format: `json`, `text` or `off`."""
    if format == "off":
        return
    log = StdoutAccessLog()
    if format == "json":
        log.log_format.json_format.update(_FIELDS)
    else:
        log.log_format.text_format_source.inline_string = _TEXT
    yield AccessLog(name="envoy.access_loggers.stdout", typed_config=messages.any_message(log))
