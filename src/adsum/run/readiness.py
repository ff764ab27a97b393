"""Runs the checks of a wrapped program from this host before it is registered."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from adsum.core.addresses import format_host_port
from adsum.core.model import Check, CheckKind, Registration
from adsum.core.tls_schemes import check_uses_tls
from adsum.run.port import CONNECT_TIMEOUT

MIN_POLL_PAUSE, MAX_POLL_PAUSE = 0.05, 0.5
"""Seconds; the bounds of the pause between two rounds of checks. They are short, so that the start is not delayed."""
MAX_STATUS_LINE_BYTES: Final = 8_192
"""Bytes of the longest status line of a response; with a longer one the check fails."""


async def wait_until_ready(registration: Registration, hosts: Sequence[str]) -> None:
    """Return once every check passes at one of `hosts`; without checks, once the port accepts connections."""
    checks = [replace(check, tls=check_uses_tls(registration.instance, check)) for check in registration.checks]
    checks = checks or [Check(name="tcp", kind=CheckKind.TCP)]
    pause = MIN_POLL_PAUSE
    while not await _is_ready_at_any(checks, registration.instance.port, hosts):
        await asyncio.sleep(pause)
        pause = min(MAX_POLL_PAUSE, pause * 1.5)


async def may_listen(port: int, hosts: Sequence[str]) -> bool:
    """Returns whether a program may listen on the port at one of `hosts`: False only if every host refuses."""
    for host in hosts:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            continue
        except (OSError, TimeoutError):
            return True
        writer.close()
        return True
    return False


async def _is_ready_at_any(checks: Sequence[Check], port: int, hosts: Sequence[str]) -> bool:
    for host in hosts:
        results = [await check_passes(check, host, check.port or port) for check in checks]
        if all(results):
            return True
    return False


async def check_passes(check: Check, host: str, port: int) -> bool:
    """Returns whether a check passes. For gRPC it only connects; the registry probes the health service."""
    try:
        async with asyncio.timeout(check.timeout):
            reader, writer = await asyncio.open_connection(
                host,
                port,
                ssl=_trusting_context() if check.tls and check.kind is not CheckKind.TCP else None,
                limit=MAX_STATUS_LINE_BYTES,
            )
            try:
                return check.kind is not CheckKind.HTTP or await _passes(check, host, port, reader, writer)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False


async def _passes(
    check: Check, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    authority = format_host_port(host, port)
    headers = {"Host": authority, "User-Agent": "adsum-run", "Connection": "close", **check.headers}
    lines = [f"{check.method} {check.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    version, status, *_ = (await reader.readuntil(b"\n")).split(None, 2)
    return version.startswith(b"HTTP/") and any(low <= int(status) <= high for low, high in check.expect)


def _trusting_context() -> ssl.SSLContext:
    """Returns a TLS context that accepts every certificate: callers verify it, readiness only needs an answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
