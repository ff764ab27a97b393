"""What is likely wrong with how a member is spoken to: TLS where there is none, none where there is, the wrong papers.

gRPC tries for long and never says so. One connection is made as ours will be, and the first answer is looked at.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from adsum.etcd.address import EtcdAddress

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that a member has to answer; one that does not is none the wiser for us."""
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How every connection of gRPC begins: the preface of HTTP/2 and empty settings."""
SETTINGS_FRAME: Final = 4
"""The type, in the fourth byte of a frame, of what is answered."""


async def diagnose_tls(address: EtcdAddress) -> str:
    """What is wrong, as one sentence; "" if a member takes it as it is, or if nobody says."""
    try:
        context = _context(address) if address.tls else None
    except ssl.SSLError:
        return "ca, cert and key must be files in PEM, and the key must be that of cert"
    except OSError:
        return ""  # Who reads them says which one can't be read.
    said = await asyncio.gather(*(_mistake(address, host, context) for host in address.hosts))
    return "" if "" in said else next((each for each in said if each), "")


async def _mistake(place: EtcdAddress, host: str, context: ssl.SSLContext | None) -> str | None:
    """The same of one member; None if it does not say."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await (_plain(host) if context is None else _encrypted(place, host, context))
    except (OSError, TimeoutError):
        return None


async def _plain(host: str) -> str | None:
    if await _answers(host, None):
        return ""
    try:
        await _answers(host, _unverified())
    except ssl.SSLError as error:
        if not _is_alert(error):
            return None
    return f"{host} speaks TLS: add tls=true, and ca=FILE if its authority is not a public one"


async def _encrypted(place: EtcdAddress, host: str, context: ssl.SSLContext) -> str | None:
    try:
        await _answers(host, context)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {host} can't be verified with {place.ca}: {error.verify_message}"
    except (ssl.SSLError, ConnectionError) as error:
        if _is_alert(error):
            return f"{host} " + (
                "does not take the certificate in cert"
                if place.cert
                else "wants a client's certificate: add cert and key"
            )
        return f"{host} speaks no TLS: leave out tls, ca, cert and key" if await _answers(host, None) else None
    return ""


def _is_alert(error: Exception) -> bool:
    """Whether the other end speaks TLS and says no."""
    return "ALERT" in str(error)


def _context(place: EtcdAddress) -> ssl.SSLContext:
    """As gRPC has it, but for public authorities, of which it knows others than Python does."""
    context = _unverified()
    if place.ca:
        context.load_verify_locations(place.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
    if place.cert:
        context.load_cert_chain(place.cert, place.key)
    return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _answers(host: str, context: ssl.SSLContext | None) -> bool:
    """Whether settings are answered. Raises `OSError`, of which those of TLS are."""
    name, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(name.strip("[]"), int(port), ssl=context)
    try:
        writer.write(HTTP2_PREFACE)
        return (await reader.read(9))[3:4] == bytes([SETTINGS_FRAME])
    finally:
        writer.transport.abort()
