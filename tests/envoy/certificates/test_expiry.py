"""What is said of a gateway's certificate as its end comes, and in status once it is past."""

from __future__ import annotations

from adsum.envoy.certificates.expiry import SAY_AGAIN, SOON, Expiry

END = 2_000_000_000.0


def test_nothing_is_said_of_a_certificate_that_lasts_or_of_none() -> None:
    expiry = Expiry()
    assert expiry.look(END - SOON - 1, END) == ""
    assert expiry.look(END, 0) == ""


def test_a_certificate_that_is_about_to_expire_is_named_once_a_day() -> None:
    expiry = Expiry()
    assert expiry.look(END - SOON, END).startswith("the certificate expires at 2033-05-18T03:33:20Z: write another")
    assert expiry.look(END - SOON + SAY_AGAIN - 1, END) == ""
    assert expiry.look(END - SOON + SAY_AGAIN, END) != ""


def test_a_certificate_that_has_expired_is_named_at_once() -> None:
    expiry = Expiry()
    assert expiry.look(END - 1, END) != ""
    assert "has expired at" in expiry.look(END, END)
    assert expiry.look(END + 1, END) == ""
    assert expiry.look(END + 2, END + SOON * 2) == "", "another one is shown"
    assert expiry.look(END + 3, END) != ""
