"""Failed handshakes are logged with their reason, and with a bound."""

from __future__ import annotations

import logging
import socket
import ssl

import pytest
import trustme

from adsum.servers.http.handshake_log import LOG_INTERVAL, HandshakeLog, failure_reason, peer_name
from tests.servers.http.serving import HttpServing
from tests.support.server_certificates import issue_client


def test_failures_in_between_are_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = HandshakeLog()
    for number in range(1_000):
        log.failed("10.0.0.7:1", ConnectionResetError(), number * LOG_INTERVAL / 400)
    assert caplog.messages == [
        "the TLS handshake of 10.0.0.7:1 failed: the peer left",
        "the TLS handshake of 10.0.0.7:1 failed: the peer left (399 more failed since the last such line)",
        "the TLS handshake of 10.0.0.7:1 failed: the peer left (399 more failed since the last such line)",
    ]


async def _app(scope: object, receive: object, send: object) -> None:
    raise AssertionError


async def test_the_log_names_the_reason(tls: HttpServing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "adsum.http")
    assert tls.certificates is not None
    context = tls.certificates.client_context(issue_client(trustme.CA()))
    shed: list[str] = []
    async with tls.server(_app, on_shed=shed.append) as (_, port):
        with pytest.raises(OSError):
            await tls.connect_with(port, context)
    assert shed == ["tls_failed"]
    (message,) = caplog.messages
    assert message.startswith("the TLS handshake of 127.0.0.1:")
    assert message.endswith(": its client certificate is not valid: unable to get local issuer certificate")


def test_an_unknown_reason_is_stated() -> None:
    assert failure_reason(ssl.SSLError(1, "")) == "unknown reason"


def test_a_peer_that_left_has_no_name() -> None:
    with socket.socket() as unconnected:
        assert peer_name(unconnected) == "a peer"
