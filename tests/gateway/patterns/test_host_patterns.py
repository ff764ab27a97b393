from __future__ import annotations

import re

import pytest

from adsum.core.errors import Invalid
from adsum.gateway.patterns import host_patterns


@pytest.mark.parametrize(
    ("host", "covered"),
    [("a.shop.example", True), ("b.a.shop.example", True), ("shop.example", False), ("ashop.example", False)],
)
def test_a_wildcard_matches_any_depth_below_its_name(host: str, covered: bool) -> None:
    assert host_patterns.covers("*.shop.example", host) is covered


def test_the_host_of_an_authority_is_in_lower_case_and_has_no_port() -> None:
    assert [host_patterns.host_of_authority(authority) for authority in ("A.b:80", "[::1]:80", "[::1]", "a")] == [
        "a.b",
        "[::1]",
        "[::1]",
        "a",
    ]


def test_an_ipv6_host_must_have_its_canonical_form() -> None:
    host_patterns.check_host_pattern("hosts[0]", "[::1]")
    with pytest.raises(Invalid, match=re.escape("canonical form [::1]")):
        host_patterns.check_host_pattern("hosts[0]", "[0:0:0:0:0:0:0:1]")
    for wrong in ("[::1", "::1", "[::g]", "[]", "*.[::1]"):
        with pytest.raises(Invalid):
            host_patterns.check_host_pattern("hosts[0]", wrong)
