"""What can be known to be wrong before an Envoy is started, so that one that serves is never left for nothing."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable

from adsum.core.addresses import format_host_port
from adsum.core.errors import AdsumError
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.process import file_limits


class CannotServe(AdsumError):
    """A gateway can't be had like this; the sentence says why, and what would help."""


def check_plan(plan: GatewayPlan, already_open: Iterable[SocketAddress] = ()) -> None:
    """Raises `CannotServe`. `already_open`: places that we listen at already."""
    if plan.connection_limit < 1:
        least = file_limits.min_files(plan.concurrency, len(plan.all_addresses))
        raise CannotServe(
            f"the system lets a program open {plan.max_open_files} files, and a gateway needs {least}, "
            "and 2 more for each caller: raise the hard limit (ulimit -Hn; LimitNOFILE= of systemd; --ulimit nofile= "
            "of docker), or lower --concurrency"
        )
    already_open = set(already_open)
    for place in plan.all_addresses:
        if place not in already_open:
            _check_free(place, "--monitor" if place == plan.monitor else "--listen")


def _check_free(place: SocketAddress, flag: str) -> None:
    """Envoys of one user share a port without a word: so we look whether somebody listens there."""
    host, port = place
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    shown = format_host_port(host, port)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        raise CannotServe(f"can't listen at {shown}: {_why(error)}; {flag} names another place") from None


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "something else listens there already"
    if error.errno == errno.EACCES:
        return "the system does not allow it; ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address"
    return error.strerror or str(error)
