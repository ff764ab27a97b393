"""The limits on what peers of the HTTP server may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

BACKLOG: Final = 4_096
"""Connections that wait to be accepted. The system refuses more."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes of the head of a request. A larger one is answered with 431, and the connection is closed."""
MAX_PIPELINED_REQUESTS: Final = 16
"""Requests of a connection that wait behind the one that is being answered. Past it nothing more is read, so the end of
the connection goes unnoticed until that request is answered."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits for one peer, or for all peers together. Timeouts are in seconds."""

    max_connections: int = 20_000
    """Open connections. A further one is answered with 503 and closed."""
    request_timeout: float = 30.0
    """The time from the first byte of a request to its last. A slower one is answered with 408, and closed."""
    idle_timeout: int = 75
    """The time after which a connection without a request is closed."""
    stall_timeout: float = 30.0
    """The time in which a peer must take `min_read_bytes` of its response; otherwise it is disconnected."""
    min_read_bytes: int = 32 * 1024
    """See `stall_timeout`."""
    max_unsent_bytes: int = 256 * 1024 * 1024
    """Bytes that wait for all peers together. Past it the peers that have not read for longest are disconnected."""
    stop_timeout: int = 5
    """The time for responses to finish when the server stops."""


OnShed = Callable[[str], None]
"""Called for each connection that a limit or a rule ended: with the status that was sent, with a word of
`tls_connector` if its handshake did not end well, or "aborted"."""


def ignore_shed(_: str) -> None:
    """Does nothing: the `OnShed` of a server that counts no connections."""
