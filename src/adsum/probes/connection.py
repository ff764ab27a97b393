"""The common parts of probes: connecting to allowed addresses, and describing what went wrong.

Names are resolved here, and the connection goes to the very address that the address policy allowed. So a name that
resolves to another address the next time (DNS rebinding) leads nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from socket import IPPROTO_TCP, SOCK_STREAM, gaierror
from time import perf_counter
from typing import Final, NamedTuple, TypeVar

from adsum.core.address_policy import AddressPolicy
from adsum.core.addresses import format_host_port, is_ip_address
from adsum.core.errors import ProbeUnavailable
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.core.tls_schemes import check_uses_tls
from adsum.core.validation import MAX_VALUE_LENGTH

MAX_ADDRESSES_PER_NAME: Final = 4
"""Addresses of one name that are tried in turn. Further addresses are ignored."""
LOCAL_RESOURCE_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Errors of this process or machine, which say nothing about the instance."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class ProbeFailed(Exception):
    """The probe fails. The text is the note of the outcome."""


class ProbeTarget(NamedTuple):
    """The target of a probe: a host name or IP address, a port, and whether to use TLS."""

    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return format_host_port(self.host, self.port)


def probe_target(instance: Instance, check: Check) -> ProbeTarget:
    """Returns the target of a check: the instance's address, and the check's port if it has one."""
    return ProbeTarget(instance.address.rstrip("."), check.port or instance.port, check_uses_tls(instance, check))


def _no_answer() -> str:
    return "no answer"


async def probe_outcome(
    check: Check, verdict: Callable[[], Awaitable[tuple[Result, str]]], progress_note: Callable[[], str] = _no_answer
) -> Outcome:
    """Returns the outcome of one probe: its verdict, or a fail if there is no verdict within `check.timeout`.

    `progress_note` is called after a timeout, to describe what the instance had answered by then. Raises
    `ProbeUnavailable`.
    """
    started_at = perf_counter()
    try:
        async with asyncio.timeout(check.timeout):
            result, note = await verdict()
    except TimeoutError:
        result, note = Result.FAIL, f"{progress_note()} within {check.timeout:g} s"
    except ProbeUnavailable:
        raise
    except ProbeFailed as failed:
        result, note = Result.FAIL, str(failed)
    except Exception as error:
        result, note = Result.FAIL, f"the probe itself failed: {error!r}"
    return Outcome(result, one_line(note, MAX_VALUE_LENGTH), perf_counter() - started_at)


async def resolve_addresses(host: str, address_policy: AddressPolicy) -> list[str]:
    """Returns the IP addresses of `host` that the policy allows, at least one. Raises `ProbeFailed`."""
    resolved = [host] if is_ip_address(host) else await _resolve(host)
    denials = {ip: address_policy.denial_reason(ip) for ip in resolved}
    allowed = [ip for ip, denial in denials.items() if denial is None]
    if not allowed:
        name = "" if host in denials else f"{host}: "
        raise ProbeFailed(f"{name}{next(iter(denials.values()))}")
    return allowed[:MAX_ADDRESSES_PER_NAME]


async def dial(
    target: ProbeTarget, address_policy: AddressPolicy, protocol: Callable[[], _P]
) -> tuple[asyncio.Transport, _P]:
    """Connects to the target, trying the addresses of a name in turn. The caller closes the transport.

    Raises `ProbeFailed`, and `ProbeUnavailable` for an error of this machine.
    """
    problem = ""
    for ip in await resolve_addresses(target.host, address_policy):
        try:
            return await _connect(ip, target, protocol)
        except OSError as error:
            if error.errno in LOCAL_RESOURCE_ERRORS:
                raise ProbeUnavailable(f"the registry itself can't open connections: {_reason(error)}") from error
            problem = problem or describe_error(error, format_host_port(ip, target.port))
    raise ProbeFailed(problem)


async def _connect(ip: str, target: ProbeTarget, protocol: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
    loop = asyncio.get_running_loop()
    if not target.tls:
        return await loop.create_connection(protocol, ip, target.port)
    return await loop.create_connection(protocol, ip, target.port, ssl=_unverified(), server_hostname=target.host)


async def _resolve(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, None, type=SOCK_STREAM, proto=IPPROTO_TCP)
    except (gaierror, UnicodeError) as error:
        raise ProbeFailed(f"the name {host} doesn't resolve: {_reason(error)}") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos))


def describe_error(error: OSError, where: str) -> str:
    """Returns a description of a failed connection to `where`, for operators."""
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused by {where}"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return f"connection closed by {where}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed with {where}: {_reason(error)}"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"no route to {where}"
    return f"no connection to {where}: {_reason(error)}"


def one_line(text: str, length: int) -> str:
    """Returns the text on one line without control characters, cut at `length` characters."""
    line = _UNPRINTABLE.sub(" ", text[: length * 2]).strip()
    return line if len(line) <= length else line[: length - 1] + "…"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)


@cache
def _unverified() -> ssl.SSLContext:
    """Returns a TLS context that does not verify certificates.

    A check finds out whether the instance answers, not who it is. Probes use IP addresses, which certificates seldom
    name, and the registry does not have its callers' trusted authorities. So don't put secrets into a check's headers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
