"""TLS alerts that tell a peer why its handshake failed.

The event loops close a connection as soon as its handshake fails, and the alert that OpenSSL wrote is lost. The peer
then sees a reset, and can't know that its certificate has expired.
"""

from __future__ import annotations

import asyncio
import ssl
from contextvars import ContextVar
from typing import Final

ALERT_TIMEOUT: Final = 1.0
"""Seconds for the peer of a failed handshake to read the alert and close; then it is disconnected."""


class HandshakeAlerts:
    """Sends the alert of one handshake, if it fails, before the connection is closed."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """Must be created in the task that does the handshake with this context, before it opens the transport."""
        context.sslobject_class = _AlertingObject
        self.error: ssl.SSLError | None = None
        """Why the handshake failed, once it has."""
        self._tcp: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        _current.set(self)

    def attach(self, tcp: asyncio.Transport) -> None:
        """Sets the transport below TLS."""
        self._tcp = tcp

    def close(self) -> None:
        """Ends the wait for the peer, and forgets the error, whose traceback leads back to this object."""
        if self._timer is not None:
            self._timer.cancel()
        self._tcp = self._timer = self.error = None

    def failed(self, error: ssl.SSLError) -> None:
        """Notes the failure. Has the alert sent, which OpenSSL has written by now."""
        self.error = error
        loop = asyncio.get_running_loop()
        loop.call_soon(self._finish)  # When the event loop has passed the alert to the transport.
        self._timer = loop.call_later(ALERT_TIMEOUT, self._abort)

    def _finish(self) -> None:
        if self._tcp is not None and not self._tcp.is_closing():
            self._tcp.write_eof()

    def _abort(self) -> None:
        if self._tcp is not None:
            self._tcp.abort()


_current: ContextVar[HandshakeAlerts | None] = ContextVar("handshake_alerts", default=None)
"""The alerts of the handshake that the current task does."""


class _AlertingObject(ssl.SSLObject):
    """The TLS state of a connection. When its handshake fails, it only asks for more bytes, so that the event loop
    sends what OpenSSL wrote.
    """

    _alerts: HandshakeAlerts | None = None

    def do_handshake(self) -> None:
        alerts = self._alerts = self._alerts or _current.get()
        if alerts is None:
            super().do_handshake()
            return
        if alerts.error is not None:  # Bytes that the peer sent before it read the alert are ignored.
            raise ssl.SSLWantReadError
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            alerts.failed(error)
            raise ssl.SSLWantReadError from error
