"""Addresses of etcd clusters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.errors import Invalid
from adsum.core.validation import without_credentials
from adsum.etcd.address import EtcdAddress


def test_an_address_has_all_options(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3%63ret\n")
    address = EtcdAddress.parse(
        f"etcd://adsum@e1,e2:2380,[::1]:1?prefix=/x&ca=/c.pem&cert=/a.pem&key=/k.pem&password-file={file}"
    )
    files = {"password_file": str(file), "ca": "/c.pem", "cert": "/a.pem", "key": "/k.pem"}
    assert address == EtcdAddress(("e1:2379", "e2:2380", "[::1]:1"), "/x/", "adsum", tls=True, **files)
    assert address.read_password() == "s3%63ret", "the password in a file is not percent-encoded"
    file.write_text("an0ther\n")
    assert address.read_password() == "an0ther"


def test_the_text_of_an_address_has_no_password() -> None:
    address = EtcdAddress.parse("etcd://root:p%40ss@e1:2379?prefix=/x")
    assert (address.user, address.password) == ("root", "p@ss")
    assert str(address) == "etcd://e1:2379?prefix=/x/"
    assert "p@ss" not in repr(address)
    assert str(EtcdAddress.parse("etcd://e1?tls=true")) == "etcd://e1:2379?tls=true"
    assert without_credentials("etcd://root:p%40ss@e1:2379?prefix=/x") == "etcd://e1:2379?prefix=/x"


@pytest.mark.parametrize(
    ("given", "prefix"), [("", ""), ("?prefix=", ""), ("?prefix=x", "x/"), ("?prefix=/x/", "/x/"), ("?prefix=/", "/")]
)
def test_a_prefix_ends_with_a_slash(given: str, prefix: str) -> None:
    assert EtcdAddress.parse(f"etcd://e1{given}").prefix == prefix


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://e1", "must be etcd://"),
        ("etcd://", "must be etcd://"),
        ("etcd://:secret@e1", "must be etcd://"),
        ("etcd://e1:0", "HOST"),
        ("etcd://e1:99999", "HOST"),
        ("etcd://a b", "HOST"),
        ("etcd://::1", "brackets"),
        ("etcd://e1?tls=perhaps", "tls must be"),
        ("etcd://e1?cert=/a", "together"),
        ("etcd://e1?timeout=3", "unknown option timeout"),
        ("etcd://e1?prefix=/a&prefix=/b", "twice"),
        ("etcd://e1?prefix", "can't be read"),
        ("etcd://u@e1?password-file=/nowhere/at/all", "can't be read"),
        ("etcd://" + ",".join(f"e{n}" for n in range(20)), "1 to 16"),
    ],
)
def test_a_wrong_address_is_refused_with_the_right_form(url: str, expected: str) -> None:
    with pytest.raises(Invalid, match=expected) as refused:
        EtcdAddress.parse(url, "store")
    assert refused.value.field == "store"
    assert "secret" not in str(refused.value)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for url in (text, f"etcd://{text}"):
        try:
            EtcdAddress.parse(url)
        except Invalid:
            continue
