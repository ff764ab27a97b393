"""What is said of a gateway's certificate as its end comes, and in status once it is past."""

from __future__ import annotations

from adsum.envoy.certificates.expiry import REPEAT_AFTER, WARN_BEFORE, CertificateExpiry

END = 2_000_000_000.0


def test_nothing_is_said_of_a_certificate_that_lasts_or_of_none() -> None:
    expiry = CertificateExpiry()
    assert expiry.warning(END - WARN_BEFORE - 1, END) == ""
    assert expiry.warning(END, 0) == ""


def test_a_certificate_that_is_about_to_expire_is_named_once_a_day() -> None:
    expiry = CertificateExpiry()
    assert expiry.warning(END - WARN_BEFORE, END).startswith(
        "the certificate expires at 2033-05-18T03:33:20Z: write another"
    )
    assert expiry.warning(END - WARN_BEFORE + REPEAT_AFTER - 1, END) == ""
    assert expiry.warning(END - WARN_BEFORE + REPEAT_AFTER, END) != ""


def test_a_certificate_that_has_expired_is_named_at_once() -> None:
    expiry = CertificateExpiry()
    assert expiry.warning(END - 1, END) != ""
    assert "has expired at" in expiry.warning(END, END)
    assert expiry.warning(END + 1, END) == ""
    assert expiry.warning(END + 2, END + WARN_BEFORE * 2) == "", "another one is shown"
    assert expiry.warning(END + 3, END) != ""
