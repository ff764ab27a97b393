"""What a caller sends to prove who it is."""

from __future__ import annotations

import pytest

from adsum.access.credentials import Credentials, bearer_token


def test_no_repr_or_text_holds_a_token() -> None:
    credentials = Credentials("adsum_secret", b"der", "10.0.0.1")
    for shown in (repr(credentials), str(credentials), f"{credentials}", repr([credentials])):
        assert "secret" not in shown
        assert "10.0.0.1" in shown


@pytest.mark.parametrize(
    ("authorization", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", ""), ("Bearer", ""), ("Bearerx", ""), ("", "")],
)
def test_a_token_is_what_follows_the_scheme_bearer(authorization: str, token: str) -> None:
    assert bearer_token(authorization) == token
