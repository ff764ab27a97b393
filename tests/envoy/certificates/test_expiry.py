"""Warnings about a certificate that is about to expire or has expired."""

from __future__ import annotations

from adsum.envoy.certificates.expiry import REPEAT_AFTER, WARN_BEFORE, CertificateExpiry

END = 2_000_000_000.0


def test_a_long_valid_certificate_or_none_gets_no_warning() -> None:
    expiry = CertificateExpiry()
    assert expiry.warning(END - WARN_BEFORE - 1, END) == ""
    assert expiry.warning(END, 0) == ""


def test_an_expiring_certificate_gets_a_warning_once_a_day() -> None:
    expiry = CertificateExpiry()
    assert expiry.warning(END - WARN_BEFORE, END).startswith(
        "the certificate expires at 2033-05-18T03:33:20Z: write a new one"
    )
    assert expiry.warning(END - WARN_BEFORE + REPEAT_AFTER - 1, END) == ""
    assert expiry.warning(END - WARN_BEFORE + REPEAT_AFTER, END) != ""


def test_an_expired_certificate_gets_a_warning_at_once() -> None:
    expiry = CertificateExpiry()
    assert expiry.warning(END - 1, END) != ""
    assert "has expired at" in expiry.warning(END, END)
    assert expiry.warning(END + 1, END) == ""
    assert expiry.warning(END + 2, END + WARN_BEFORE * 2) == "", "there is another certificate now"
    assert expiry.warning(END + 3, END) != ""
