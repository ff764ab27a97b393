"""What every probe needs: to connect within the fence, and to put into words what went wrong.

A name is resolved here and the connection goes to the very address that the fence was asked about, so that a name that
resolves differently the next time (DNS rebinding) leads nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from ipaddress import ip_address
from socket import IPPROTO_TCP, SOCK_STREAM, gaierror
from time import perf_counter
from typing import Final, NamedTuple, TypeVar

from adsum.core.address_policy import AddressPolicy
from adsum.core.errors import ProbeUnavailable
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.core.tls_schemes import check_uses_tls
from adsum.core.validation import MAX_VALUE_LENGTH

MAX_ADDRESSES_PER_NAME: Final = 4
"""How many addresses of one name are tried, one after the other; further ones are ignored."""
LOCAL_RESOURCE_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Errors that speak of this process or machine and not of the instance."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class ProbeFailed(Exception):
    """The probe's verdict is a fail, and this is why."""


class ProbeTarget(NamedTuple):
    """Where a check goes: the host and the port as people write them, and whether TLS is spoken there."""

    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return authority(self.host, self.port)


def probe_target(instance: Instance, check: Check) -> ProbeTarget:
    """The instance's own address, and the check's port if it has one."""
    return ProbeTarget(instance.address.rstrip("."), check.port or instance.port, check_uses_tls(instance, check))


def authority(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _no_answer() -> str:
    return "no answer"


async def probe_outcome(
    check: Check, verdict: Callable[[], Awaitable[tuple[Result, str]]], progress_note: Callable[[], str] = _no_answer
) -> Outcome:
    """The outcome of one probe: its verdict, or in words why there is none within `check.timeout`.

    `progress_note` is asked what there was when time is up. Raises `ProbeUnavailable`.
    """
    begun = perf_counter()
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
        result, note = Result.FAIL, f"the probe broke: {error!r}"
    return Outcome(result, one_line(note, MAX_VALUE_LENGTH), perf_counter() - begun)


async def resolve_addresses(host: str, address_policy: AddressPolicy) -> list[str]:
    """The IP addresses that `host` stands for and that the fence lets through, at least one. Raises `ProbeFailed`."""
    found = [host] if _is_ip(host) else await _resolve(host)
    refusals = {ip: address_policy.denial_reason(ip) for ip in found}
    within = [ip for ip, refusal in refusals.items() if refusal is None]
    if not within:
        of = "" if host in refusals else f"{host}: "
        raise ProbeFailed(f"{of}{next(iter(refusals.values()))}")
    return within[:MAX_ADDRESSES_PER_NAME]


async def dial(
    target: ProbeTarget, address_policy: AddressPolicy, protocol: Callable[[], _P]
) -> tuple[asyncio.Transport, _P]:
    """Connect, trying the addresses of a name in turn; the caller closes the transport.

    Raises `ProbeFailed` and `ProbeUnavailable`.
    """
    trouble = ""
    for ip in await resolve_addresses(target.host, address_policy):
        try:
            return await _connect(ip, target, protocol)
        except OSError as error:
            if error.errno in LOCAL_RESOURCE_ERRORS:
                raise ProbeUnavailable(f"the registry itself can't connect to anybody: {_reason(error)}") from error
            trouble = trouble or describe_error(error, authority(ip, target.port))
    raise ProbeFailed(trouble)


async def _connect(ip: str, place: ProbeTarget, protocol: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
    loop = asyncio.get_running_loop()
    if not place.tls:
        return await loop.create_connection(protocol, ip, place.port)
    return await loop.create_connection(protocol, ip, place.port, ssl=_unverified(), server_hostname=place.host)


async def _resolve(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=SOCK_STREAM, proto=IPPROTO_TCP)
    except (gaierror, UnicodeError) as error:
        raise ProbeFailed(f"the name {host} doesn't resolve: {_reason(error)}") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def describe_error(error: OSError, where: str) -> str:
    """What went wrong on the way to `where`, as an operator would say it."""
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
    """The text on one line without control characters, cut at `length` characters."""
    line = _UNPRINTABLE.sub(" ", text[: length * 2]).strip()
    return line if len(line) <= length else line[: length - 1] + "…"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@cache
def _unverified() -> ssl.SSLContext:
    """Certificates are not verified.

    A check asks whether the instance answers, not who it is: it is reached by an address, for which certificates are
    seldom made, and the registry doesn't share its callers' trust. So don't put secrets into a check's headers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
