from __future__ import annotations

import ipaddress

import pytest

from adsum.client.address import default_id, facing
from adsum.core.rules import instance_id


@pytest.mark.parametrize("peer", [("127.0.0.1", 80), ("127.8.8.8", 80), ("::1", 80, 0, 0)])
def test_a_registry_on_this_host_is_faced_from_loopback(peer: tuple[str, int]) -> None:
    assert facing(peer) == "127.0.0.1"


def test_an_address_that_is_found_is_one_that_callers_can_reach() -> None:
    try:
        found = facing(("192.0.2.1", 9))
    except OSError:
        pytest.skip("this host has no route to anywhere")
    assert not ipaddress.ip_address(found).is_unspecified


@pytest.mark.parametrize(("host", "id"), [("web-1", "web-1-80"), ("a b/ü", "a-b-80"), ("", "host-80"), ("_x", "x-80")])
def test_an_id_is_made_of_host_and_port(host: str, id: str) -> None:
    assert default_id(80, host) == id


def test_an_id_is_bounded_however_long_the_host_is_named() -> None:
    id = default_id(65535, "h" * 500)
    instance_id("id", id)
    assert id.endswith("-65535")
