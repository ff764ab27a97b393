"""The reasons why a registry node does not answer over xDS, as people read them."""

from __future__ import annotations

import pytest

from adsum.envoy.registry_health.xds_errors import answer_problem

FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.5:23787: "
HANDSHAKE = f"{FAILED}Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"


@pytest.mark.parametrize(
    ("details", "problem"),
    [
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "`adsum init --renew` on that node"),
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK", "another authority"),
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK", "check the clocks"),
        (f"{HANDSHAKE}WRONG_VERSION_NUMBER: Invalid certificate verification context: OK", "does not speak TLS"),
        (f"{FAILED}Custom verification check failed: Hostname Verification Check failed.", "is not for 10.0.0.5"),
        (f"{FAILED}Socket closed", "it may refuse this gateway's certificate"),
        (f"{FAILED}Failed to connect to remote host: Connection refused", "10.0.0.5:23787: Connection refused"),
        ("the token edge was revoked", "10.0.0.5:23787: the token edge was revoked"),
    ],
)
def test_a_failure_over_tls_is_one_sentence_with_the_remedy(details: str, problem: str) -> None:
    text = answer_problem("10.0.0.5:23787", details, is_timeout=False, has_tls=True)
    assert problem in text
    assert "SSL" not in text


def test_a_node_that_requires_tls_is_explained_to_a_gateway_without() -> None:
    text = answer_problem("10.0.0.5:23787", f"{FAILED}Socket closed", is_timeout=False, has_tls=False)
    assert "it may require TLS: join its registry with `adsum join`" in text


def test_silence_is_named_with_its_length() -> None:
    assert answer_problem("h:1", "", is_timeout=True, has_tls=True) == "h:1 does not answer within 3 s"
