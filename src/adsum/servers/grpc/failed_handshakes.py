"""The TLS connections that made no call, for the log: grpc reports neither failed handshakes nor their peers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

LOOK_INTERVAL: Final = 10.0
"""Seconds between two looks. A connection that began before the last one and has made no call counts as failed."""
LOG_INTERVAL: Final = 60.0
"""Seconds between two lines about failed connections, since anyone who reaches the port can cause them."""
MAX_PEERS: Final = 10_000
"""Peers that are remembered. Past it the one whose latest call is the oldest is forgotten; its next call counts as that
of a new connection, so that a failed one is missed."""

_log = logging.getLogger("adsum.grpc")


def ignore(_: int) -> None:
    """Does nothing: for a server that counts no connections."""


class FailedHandshakes:
    """Counts the connections that began, and those that made a call. The rest had no valid certificate, or no TLS."""

    def __init__(self, on_failed: Callable[[int], None] = ignore) -> None:
        """`on_failed` is called with the number of connections that a look found."""
        self._on_failed = on_failed
        self._lock = threading.Lock()
        self._begun = self._due = self._admitted = self._unreported = 0
        self._peers: OrderedDict[str, None] = OrderedDict()
        self._reported_at: float | None = None
        self.count = 0
        """The connections that made no call."""

    def begin(self) -> None:
        """Notes that a connection begins. grpc calls it in threads of its own."""
        with self._lock:
            self._begun += 1

    def admit(self, peer: str) -> None:
        """Notes a call of a peer, IP:PORT."""
        if peer not in self._peers:
            self._admitted += 1
            if len(self._peers) >= MAX_PEERS:
                self._peers.popitem(last=False)
        self._peers[peer] = None
        self._peers.move_to_end(peer)

    def look(self, now: float) -> None:
        """Counts what has failed since the last look, and logs it if that is due. `now` is in monotonic seconds."""
        failed = max(0, self._due - self._admitted - self.count)
        self._due = self._begun
        self.count += failed
        self._unreported += failed
        if failed:
            self._on_failed(failed)
        if self._unreported and (self._reported_at is None or now - self._reported_at >= LOG_INTERVAL):
            _log.info(
                "refused connections to xDS: %d made no call, because they sent no TLS or no certificate that this "
                "registry accepts; hosts get one by `adsum join`",
                self._unreported,
            )
            self._unreported, self._reported_at = 0, now

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            self.look(asyncio.get_running_loop().time())
