"""What peers may take. Options are those of grpc's core (grpc/impl/channel_arg_names.h)."""

from __future__ import annotations

from typing import Any, Final

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after, stale_after

MAX_CALLS: Final = 12_000
"""Calls at a time; past it a new one is refused with RESOURCE_EXHAUSTED."""
MAX_CALLS_PER_CONNECTION: Final = 1_000
"""Calls at a time on one connection; the peer waits with more."""
MAX_PENDING_CALLS: Final = 20_000
"""Calls that wait to be taken up, when all clients come back together; past it some are refused, at twice as many all.
grpc's own bound of 1,000 turns gateways away after a restart."""
MAX_METADATA_BYTES: Final = 16 * 1024
"""Bytes of a call's metadata; one with more is refused."""
KEEPALIVE_TIME: Final = stale_after(DEFAULT_HEARTBEAT)
"""Seconds of silence after which a peer is asked whether it is still there."""
KEEPALIVE_TIMEOUT: Final = lost_after(DEFAULT_HEARTBEAT)
"""Seconds that it may take to answer; then its connection is closed. grpc also has the system close a connection whose
peer acknowledges nothing for so long (TCP_USER_TIMEOUT)."""
MIN_PING_INTERVAL: Final = 2.0
"""Seconds that peers leave between their own such questions; who asks more often is turned away."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds in which a connection must say that it speaks HTTP/2; then it is closed."""
FINAL_READ_TIMEOUT: Final = 5.0
"""Seconds that a peer whose call is ended has to read what was sent before; then its connection is closed."""
STOP_TIMEOUT: Final = 1.0
"""Seconds that calls may take to end once the server stops."""


def server_options(max_message: int, connections: int) -> list[tuple[str, Any]]:
    """The options of a server that takes messages of so many bytes, and closes connections past so many at a time."""
    return [
        ("grpc.so_reuseport", 0),  # Two servers on one port would share its clients, and nobody be told.
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_TIME * 1_000)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(MIN_PING_INTERVAL * 1_000)),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_TIMEOUT * 1_000)),
        ("grpc.enable_retries", 0),
    ]
