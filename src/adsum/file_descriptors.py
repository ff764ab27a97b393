"""How many connections fit into the file descriptors that the system lets this process have."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from typing import Final

RESERVED_DESCRIPTORS: Final = 64
"""Descriptors of a node itself: its store, its connections to etcd and to other nodes, its log, where it listens."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections each server may have at a time."""

    http: int
    grpc: int


def connection_limits(limit: int, *, http: int, grpc: int, probes: int) -> ConnectionLimits:
    """What fits into `limit` descriptors, of the connections that are wanted and beside so many probes at a time.

    The node and its probes come first, with up to half of the descriptors. If not all connections fit, an eighth of the
    others is kept free for those that are turned away, and both servers get the same share of what they want, at least
    one.
    """
    left = limit - min(RESERVED_DESCRIPTORS + probes, limit // 2)
    usable = left - left // 8
    if http + grpc <= usable:
        return ConnectionLimits(http, grpc)
    fitting = max(1, usable * http // (http + grpc))
    return ConnectionLimits(fitting, max(1, usable - fitting) if grpc else 0)


def raise_descriptor_limit() -> int:
    """Ask for as many descriptors as the system grants; how many this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
