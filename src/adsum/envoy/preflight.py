"""Checks a plan before an Envoy is started, so that a serving Envoy is never replaced by one that can't serve."""

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
    """The gateway can't serve with this plan. The message says why and what to do."""


def check_plan(plan: GatewayPlan, already_open: Iterable[SocketAddress] = ()) -> None:
    """Raises `CannotServe` if the plan can't work. The gateway itself listens at `already_open` already."""
    if plan.connection_limit < 1:
        needed = file_limits.min_files(plan.concurrency, len(plan.all_addresses))
        raise CannotServe(
            f"a program may open {plan.max_open_files} files here, and this gateway needs {needed}, "
            "plus 2 per further connection: raise the hard limit (ulimit -Hn; LimitNOFILE= of systemd; "
            "--ulimit nofile= of docker) or lower --concurrency"
        )
    already_open = set(already_open)
    for address in plan.all_addresses:
        if address not in already_open:
            _check_free(address, "--monitor" if address == plan.monitor else "--listen")


def _check_free(address: SocketAddress, flag: str) -> None:
    """Raises `CannotServe` if the address is taken. Envoys of one user would silently share a port."""
    host, port = address
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    address_text = format_host_port(host, port)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        raise CannotServe(
            f"can't listen at {address_text}: {_reason(error)}; choose another address with {flag}"
        ) from None


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there already"
    if error.errno == errno.EACCES:
        return "permission denied; ports below 1024 need the privilege CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address"
    return error.strerror or str(error)
