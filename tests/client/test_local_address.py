from __future__ import annotations

import ipaddress

import pytest

from adsum.client import local_address as module
from adsum.client.local_address import (
    LOOPBACK,
    default_address,
    default_id,
    is_local,
    outbound_address,
    outbound_address_to_any,
)
from adsum.core.validation import instance_id


@pytest.mark.parametrize("peer", [("127.0.0.1", 80), ("127.8.8.8", 80), ("::1", 80, 0, 0)])
def test_the_outbound_address_to_this_host_is_loopback(peer: tuple[str, int]) -> None:
    assert outbound_address(peer) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "local"), [("127.0.0.1", True), ("192.0.2.77", False), ("localhost", False), ("fe80::1", False)]
)
def test_an_address_is_local_while_this_host_has_it(address: str, local: bool) -> None:
    assert is_local(address) is local


async def test_the_first_host_that_is_not_this_one_decides_the_outbound_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module, "outbound_address", lambda peer: f"10.9.9.{peer[1]}" if peer[0] == "10.0.0.2" else LOOPBACK
    )
    near, far, nowhere = ("127.0.0.1", 1), ("10.0.0.2", 2), ("no-such-host.invalid", 3)
    assert await outbound_address_to_any([near, nowhere, far, ("10.0.0.2", 4)], 5.0) == "10.9.9.2"
    assert await outbound_address_to_any([nowhere, near], 5.0) == LOOPBACK
    with pytest.raises(OSError, match=r"no route to no-such-host\.invalid"):
        await outbound_address_to_any([nowhere], 5.0)


def test_the_outbound_address_is_not_a_wildcard() -> None:
    try:
        found = outbound_address(("192.0.2.1", 9))
    except OSError:
        pytest.skip("this host has no route to anywhere")
    assert not ipaddress.ip_address(found).is_unspecified


@pytest.mark.parametrize(
    ("host", "id"),
    [
        ("web-1", "web-1-10.0.0.1-80"),
        ("a b/ü", "a-b-10.0.0.1-80"),
        ("", "host-10.0.0.1-80"),
        ("_x", "x-10.0.0.1-80"),
    ],
)
def test_an_id_is_made_of_host_address_and_port(host: str, id: str) -> None:
    assert default_id(80, "10.0.0.1", host) == id


def test_two_hosts_of_one_name_have_two_ids() -> None:
    assert default_id(80, "10.0.0.1", "web") != default_id(80, "10.0.0.2", "web")
    assert default_id(80, "2001:db8::1", "web") == "web-2001-db8-1-80"


def test_the_default_id_uses_this_hosts_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADSUM_ADDRESS", raising=False)
    assert default_id(80) == default_id(80, default_address())
    monkeypatch.setenv("ADSUM_ADDRESS", "10.0.0.7")
    assert default_id(80, host="web") == "web-10.0.0.7-80"


def test_an_id_is_bounded_however_long_host_and_address_are() -> None:
    id = default_id(65535, "a" * 250, "h" * 500)
    instance_id("id", id)
    assert id.endswith("-65535")
