from __future__ import annotations

from pathlib import Path

import pytest

from adsum.consul.address import ConsulAddress
from adsum.core.errors import Invalid


def test_an_address_has_all_options(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    address = ConsulAddress.parse(f"consul://h1?dc=dc2&token-file={tmp_path}/token", {})
    assert (address.url, address.dc, address.token) == ("http://h1:8500", "dc2", "s3cret")
    assert "s3cret" not in f"{address} {address!r}"
    assert ConsulAddress.parse("consul://[::1]:85?tls=true", {"CONSUL_HTTP_TOKEN": "t"}).url == "https://[::1]:85"
    assert ConsulAddress.parse("consul://h1", {"CONSUL_HTTP_TOKEN": "t"}).token == "t"


@pytest.mark.parametrize(
    "url",
    [
        "consul://",
        "consul://a,b",
        "consul://token@h1",
        "consul://h1:0",
        "consul://h1?what=1",
        "consul://h1?dc=a&dc=b",
        "consul://h1?tls=maybe",
        "consul://h1?cert=x",
        "consul://h1?token-file=/nowhere",
        "http://h1",
    ],
)
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        ConsulAddress.parse(url, {})


def test_an_unreadable_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="can't be used"):
        ConsulAddress.parse(f"consul://h1?ca={tmp_path}/none.pem", {}).ssl_context()
