"""When a warning about the expiry of a certificate is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.certificates.expiry import DAY, EXPIRED, OVERDUE, CertificateLife, ExpiryWarnings, expiry_stage

OWN = CertificateLife("server", 0.0, 365 * DAY, "write a new one to --tls-cert")
MADE = CertificateLife("node", 0.0, 8 * DAY, is_renewed=True)


def test_each_of_30_7_and_1_days_before_the_expiry_has_one_warning() -> None:
    warnings = ExpiryWarnings()
    at: list[tuple[float, str]] = []
    for hour in range(365 * 24 + 48):
        at += [(hour / 24, text) for text in warnings.due([OWN], hour * 3_600.0)]
    assert [day for day, _ in at] == [335.0, 358.0, 364.0, 365.0]
    assert at[0][1] == (
        "the certificate server expires in 30 days, at 1971-01-01T00:00:00Z: write a new one to --tls-cert"
    )
    assert at[2][1].startswith("the certificate server expires in 24 hours")
    assert at[3][1].startswith("the certificate server expired at 1971-01-01T00:00:00Z")


def test_a_certificate_that_renews_itself_has_a_warning_when_that_is_overdue() -> None:
    warnings = ExpiryWarnings()
    assert warnings.due([MADE], 5.9 * DAY) == []
    (text,) = warnings.due([MADE], 6 * DAY)
    assert "its renewal is overdue" in text
    assert warnings.due([MADE], 7.9 * DAY) == []
    assert len(warnings.due([MADE], 8 * DAY)) == 1


def test_a_renewed_certificate_begins_anew() -> None:
    warnings = ExpiryWarnings()
    assert len(warnings.due([OWN], 364 * DAY)) == 1
    assert warnings.due([CertificateLife("server", 0.0, 800 * DAY)], 364 * DAY) == []
    assert len(warnings.due([OWN], 364 * DAY)) == 1


@given(st.floats(1.0, 1e9), st.floats(-1e9, 1e9), st.booleans())
def test_stages_only_become_more_urgent(life: float, now: float, is_renewed: bool) -> None:
    certificate = CertificateLife("x", 0.0, life, is_renewed=is_renewed)
    order = {None: 99, 30: 30, 7: 7, 1: 1, OVERDUE: 0, EXPIRED: -1}
    before, after = (expiry_stage(certificate, at) for at in (now, now + 1_000.0))
    assert order[after] <= order[before]
