"""The limits on gRPC peers, as options of grpc's core (grpc/impl/channel_arg_names.h)."""

from __future__ import annotations

from typing import Any, Final

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after, stale_after

MAX_CALLS: Final = 12_000
"""Concurrent calls. Past it a new call is refused with RESOURCE_EXHAUSTED."""
MAX_CALLS_PER_CONNECTION: Final = 1_000
"""Concurrent calls on one connection. Past it the peer holds back new calls."""
MAX_PENDING_CALLS: Final = 20_000
"""Calls that wait to be accepted, for instance when all clients reconnect. Past it some are refused, past twice as many
all are. grpc's default of 1,000 refuses gateways after a restart."""
MAX_METADATA_BYTES: Final = 16 * 1024
"""Bytes of the metadata of a call. A call with more is refused."""
KEEPALIVE_TIME: Final = stale_after(DEFAULT_HEARTBEAT)
"""Seconds of silence after which the server pings a peer."""
KEEPALIVE_TIMEOUT: Final = lost_after(DEFAULT_HEARTBEAT)
"""Seconds in which a peer must answer the ping; then its connection is closed. grpc also sets it as TCP_USER_TIMEOUT:
the system closes a connection whose peer acknowledges nothing for so long."""
MIN_PING_INTERVAL: Final = 2.0
"""Seconds between the pings of a peer. A peer that pings more often is disconnected."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds in which a connection must begin HTTP/2; then it is closed."""
FINAL_READ_TIMEOUT: Final = 5.0
"""Seconds in which the peer of an ended call must read the last message; then its connection is closed."""
STOP_TIMEOUT: Final = 1.0
"""Seconds for calls to end when the server stops; then they are cancelled."""


def server_options(max_message: int, connections: int) -> list[tuple[str, Any]]:
    """Returns the options of a server. `max_message` is in bytes. Past `connections` a new connection is closed."""
    return [
        ("grpc.so_reuseport", 0),  # Otherwise two servers on one port share its clients without an error.
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
