"""What a caller sends to prove who it is."""

from __future__ import annotations

import pytest

from adsum.access.credentials import UNKNOWN_SCHEME, Credentials, presented_token


def test_no_repr_or_text_holds_a_token() -> None:
    credentials = Credentials("adsum_secret", b"der", "10.0.0.1")
    for shown in (repr(credentials), str(credentials), f"{credentials}", repr([credentials])):
        assert "secret" not in shown
        assert "10.0.0.1" in shown


@pytest.mark.parametrize(
    ("authorizations", "token"),
    [
        ([], ""),
        (["Bearer abc"], "abc"),
        (["bearer  abc "], "abc"),
        (["BEARER abc"], "abc"),
        (["Bearer"], UNKNOWN_SCHEME),
        (["Bearer "], UNKNOWN_SCHEME),
        (["Basic YTpi"], UNKNOWN_SCHEME),
        (["Bearerabc"], UNKNOWN_SCHEME),
        ([""], UNKNOWN_SCHEME),
        (["Bearer abc", "Bearer abc"], UNKNOWN_SCHEME),
    ],
)
def test_wrong_credentials_are_never_taken_for_none(authorizations: list[str], token: str) -> None:
    assert presented_token(authorizations) == token
