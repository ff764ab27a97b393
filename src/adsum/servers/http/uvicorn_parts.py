"""The private parts of uvicorn that this package uses, in `uvicorn_adapter` and `uvicorn_server` alone.

A test compares them with the installed uvicorn and names the parts that are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PRIVATE_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": (
        "_start_asgi_task",
        "_unset_keepalive_if_required",
        "client",
        "cycle",
        "flow",
        "headers",
        "loop",
        "on_body",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "parser",
        "pipeline",
        "send_400_response",
        "server_state",
        "shutdown",
        "timeout_keep_alive",
        "timeout_keep_alive_handler",
        "timeout_keep_alive_task",
        "transport",
        "url",
    ),
    "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": (
        "chunked_encoding",
        "disconnected",
        "keep_alive",
        "message_event",
        "on_response",
        "response_complete",
        "response_started",
        "scope",
        "waiting_for_100_continue",
    ),
    "uvicorn.protocols.http.flow_control:FlowControl": ("resume_reading", "write_paused"),
    "uvicorn.server:Server": (
        "capture_signals",
        "config",
        "lifespan",
        "server_state",
        "servers",
        "should_exit",
        "started",
        "startup",
    ),
    "uvicorn.server:ServerState": ("connections", "default_headers"),
    "uvicorn.config:Config": ("backlog", "http_protocol_class"),
    "uvicorn.lifespan.off:LifespanOff": ("startup", "state"),
}
"""Class → its attributes and methods that the two modules use. The status lines (`STATUS_LINE`) are used as well."""
