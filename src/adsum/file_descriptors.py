"""The limits of connections that follow from this process's limit of file descriptors."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from typing import Final

RESERVED_DESCRIPTORS: Final = 64
"""Descriptors for a node itself: its store, connections to etcd and other nodes, its log and listening sockets."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The number of connections that each server may have at a time."""

    http: int
    grpc: int


def connection_limits(limit: int, *, http: int, grpc: int, probes: int) -> ConnectionLimits:
    """Returns how many of the `http` and `grpc` connections that are wanted fit into `limit` descriptors.

    The node and its `probes` concurrent probes come first, with up to half of the descriptors. An eighth of the rest is
    kept free for connections that are refused. If not all wanted connections fit, both servers get the same share of
    the number that they want, at least one connection.
    """
    rest = limit - min(RESERVED_DESCRIPTORS + probes, limit // 2)
    usable = rest - rest // 8
    if http + grpc <= usable:
        return ConnectionLimits(http, grpc)
    fitting = max(1, usable * http // (http + grpc))
    return ConnectionLimits(fitting, max(1, usable - fitting) if grpc else 0)


def raise_descriptor_limit() -> int:
    """Raises the limit of descriptors as far as the system allows. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
