"""What the errors of TLS mean."""

from __future__ import annotations

import ssl

import pytest

from adsum.client.native.tls_errors import MAX_CAUSES, find_tls_error, is_untrusted, tls_problem


def verification_error(code: int, message: str = "m") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (9, "not valid yet: compare the clocks"),
        (10, "has expired (`adsum init --renew`"),
        (18, "an authority that this host does not trust"),
        (19, "an authority that this host does not trust"),
        (20, "an authority that this host does not trust"),
        (62, "for other names (m): use an address that the certificate has"),
        (64, "for other names (m)"),
        (23, "its certificate can't be verified: m"),
    ],
)
def test_a_certificate_that_can_not_be_verified_has_one_clear_reason(code: int, problem: str) -> None:
    error = verification_error(code)
    assert is_untrusted(error)
    assert problem in tls_problem(error)


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("WRONG_VERSION_NUMBER", "it does not speak TLS at this port: use http://"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "which has expired: `adsum join --renew`"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "it requires a certificate of this host"),
        ("TLSV1_ALERT_UNKNOWN_CA", "which another authority signed"),
        ("NO_SHARED_CIPHER", "the TLS connection failed: [ssl: no shared cipher] text"),
    ],
)
def test_alerts_are_explained(reason: str, problem: str) -> None:
    error = ssl.SSLError(1, f"[SSL: {reason}] text")
    assert not is_untrusted(error)
    assert problem in tls_problem(error)


def test_the_cause_of_an_error_is_found_behind_others() -> None:
    cause = ssl.SSLError(1, "x")
    outer: Exception = cause
    for _ in range(3):
        wrapped = ValueError("y")
        wrapped.__cause__, outer = outer, wrapped
    assert find_tls_error(outer) is cause
    assert find_tls_error(ValueError("z")) is None


def test_an_endless_chain_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert find_tls_error(first) is None
    assert MAX_CAUSES < 100


def test_other_systems_get_no_advice_about_a_registry() -> None:
    assert "adsum" not in tls_problem(verification_error(20), is_registry=False)
