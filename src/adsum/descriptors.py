"""How many connections fit into the file descriptors that the system lets this process have."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from typing import Final

RESERVE: Final = 64
"""Descriptors of a node itself: its store, its connections to etcd and to other nodes, its log, where it listens."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections each server may have at a time, and how many it may accept on top to turn them away."""

    http: int
    grpc: int
    spare: int


def room(limit: int, *, http: int, grpc: int, probes: int) -> Room:
    """What fits into `limit` descriptors, of the connections that are wanted and beside so many probes at a time.

    The node and its probes come first, with up to half of the descriptors; an eighth of the others is kept free for
    connections that are turned away. If not all fit, both servers get the same share of what they want, at least one.
    """
    left = limit - min(RESERVE + probes, limit // 2)
    spare = left // 8
    usable = left - spare
    if http + grpc <= usable:
        return Room(http, grpc, left - http - grpc)
    fitting = max(1, usable * http // (http + grpc))
    return Room(fitting, max(1, usable - fitting) if grpc else 0, spare)


def raise_limit() -> int:
    """Ask for as many descriptors as the system grants; how many this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
