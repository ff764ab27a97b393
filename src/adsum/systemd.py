"""Notifies systemd of the state of this service, if systemd started it: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str) -> None:
    """Sends the state to systemd. Does nothing without systemd."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify_socket:
        # A leading @ stands for the abstract name space.
        notify_socket.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)


def reloading_state() -> str:
    """Returns the state of a service that reads its settings again, from now until `READY` is sent."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}"
