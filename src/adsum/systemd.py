"""Telling systemd how a service of ours is, if it started us (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str) -> None:
    """Say so; without systemd nothing happens. A leading @ of the socket's name is the abstract name space."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifying:
        notifying.sendto(state.encode(), "\0" + where[1:] if where.startswith("@") else where)


def reloading_state() -> str:
    """That settings are being read again, from now on and until `READY` is said."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}"
