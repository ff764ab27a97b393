"""The log of failed TLS handshakes, with a bound: anyone who reaches the port can cause them."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import suppress
from typing import Final

from adsum.core.addresses import format_host_port

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines about failed handshakes. Those in between are only counted."""

_log = logging.getLogger("adsum.http")


class HandshakeLog:
    """Logs the first failure of a while, with the number of those that it left out before."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._left_out = 0

    def failed(self, peer: str, error: OSError, now: float) -> None:
        """Notes a failed handshake. `now` is in monotonic seconds."""
        if self._last is not None and now - self._last < LOG_INTERVAL:
            self._left_out += 1
            return
        more = f" ({self._left_out} more failed since the last such line)" if self._left_out else ""
        _log.info("the TLS handshake of %s failed: %s%s", peer, failure_reason(error), more)
        self._last, self._left_out = now, 0


def failure_reason(error: OSError) -> str:
    """Returns a few words about why a handshake failed, without anything that the peer wrote."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its client certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason: str | None = getattr(error, "reason", None)  # Only errors of OpenSSL have one.
        return (reason or "unknown reason").replace("_", " ").lower()
    return "the peer left"


def peer_name(connection: socket.socket) -> str:
    """Returns the address of a peer as HOST:PORT, "a peer" if it has left."""
    with suppress(OSError, ValueError, TypeError):
        host, port = connection.getpeername()[:2]
        return format_host_port(host, port)
    return "a peer"
