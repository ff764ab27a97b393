"""The connections to a gRPC server over TLS that made no call are counted, and logged with a bound."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.servers.grpc import failed_handshakes
from adsum.servers.grpc.failed_handshakes import LOG_INTERVAL, FailedHandshakes
from tests.servers.grpc.serving import EchoMethod, GrpcPeer, GrpcServing, client_credentials
from tests.support.server_certificates import FakeServerCertificates
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "adsum.grpc")


def test_a_connection_that_made_no_call_until_the_next_look_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    found: list[int] = []
    handshakes = FailedHandshakes(found.append)
    for _ in range(3):
        handshakes.begin()
    handshakes.look(0.0)
    assert handshakes.count == 0, "they may still be under way"
    handshakes.admit("10.0.0.1:1")
    handshakes.admit("10.0.0.1:1")
    handshakes.look(10.0)
    assert handshakes.count == 2
    assert found == [2]
    assert "refused connections to xDS: 2 made no call" in caplog.text
    assert "`adsum join`" in caplog.text


def test_failed_connections_are_logged_once_a_while(caplog: pytest.LogCaptureFixture) -> None:
    handshakes = FailedHandshakes()
    for look in range(13):
        handshakes.begin()
        handshakes.look(look * LOG_INTERVAL / 6)
    assert [record.getMessage().split()[4] for record in caplog.records] == ["1", "6"]
    assert handshakes.count == 12


@given(st.lists(st.sampled_from(["begin", "admit", "look"])))
def test_what_failed_never_shrinks_and_is_never_more_than_began(events: list[str]) -> None:
    handshakes, begun, admitted, before = FailedHandshakes(), 0, 0, 0
    for n, event in enumerate(events):
        if event == "begin":
            begun += 1
            handshakes.begin()
        elif event == "admit" and admitted + handshakes.count < begun:
            admitted += 1
            handshakes.admit(f"10.0.0.1:{admitted}")
        elif event == "look":
            handshakes.look(float(n))
        assert before <= handshakes.count <= begun - admitted
        before = handshakes.count


def test_forgotten_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_handshakes, "MAX_PEERS", 2)
    handshakes = FailedHandshakes()
    for n in (1, 2, 3, 3):
        handshakes.begin()
        handshakes.admit(f"10.0.0.1:{n}")
    handshakes.look(0.0)
    handshakes.look(10.0)
    assert handshakes.count == 1, "the second call of a peer that is remembered is of the same connection"


@pytest.mark.parametrize("kind", ["no certificate", "no TLS"])
async def test_a_server_counts_what_is_refused_and_not_what_is_served(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(failed_handshakes, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(failed_handshakes, "LOG_INTERVAL", 0.0)
    certificates, echo = FakeServerCertificates(), EchoMethod()
    async with GrpcServing(certificates).server(echo) as (_, address):
        credentials = client_credentials(certificates, certificates.issue_client())
        admitted = GrpcPeer(address, b"hi", credentials=credentials)
        await until(lambda: admitted.received == [b"hi"])
        refused = GrpcPeer(
            address, credentials=client_credentials(certificates, None) if kind == "no certificate" else None
        )
        assert (await refused.ended())[0] == "UNAVAILABLE"
        await until(lambda: "refused connections to xDS: 1 made no call" in caplog.text)
        refused.close()
        admitted.close()
