from __future__ import annotations

from random import Random

import pytest

from adsum.client.nodes import Nodes, parse_urls
from adsum.core.errors import Invalid

URLS = ["http://a:1", "http://b:1", "http://c:1"]


def test_a_node_that_works_is_asked_again() -> None:
    nodes = Nodes(URLS, Random(1))
    assert nodes.current == nodes.current


def test_a_node_that_failed_is_asked_last() -> None:
    nodes = Nodes(URLS, Random(1))
    first = nodes.current
    nodes.failed(first)
    assert nodes.current != first
    assert list(nodes)[-1] == first
    assert sorted(nodes) == URLS


def test_a_late_failure_of_a_node_given_up_already_changes_nothing() -> None:
    nodes = Nodes(URLS, Random(1))
    first = nodes.current
    nodes.failed(first)
    second = nodes.current
    nodes.failed(first)
    assert nodes.current == second


def test_clients_spread_over_the_nodes() -> None:
    assert {Nodes(URLS, Random(seed)).current for seed in range(20)} == set(URLS)


def test_addresses_are_a_list_or_separated_by_commas() -> None:
    assert parse_urls("http://a:1/, http://b:1,http://a:1") == ("http://a:1", "http://b:1")
    assert parse_urls(["https://r.example"]) == ("https://r.example",)


@pytest.mark.parametrize(
    "url", ["", ",", "a:1", "http://", "http://a:99999", "http://a:0", "http://a/?x=1", "localhost"]
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(Invalid, match="http://127") as refused:
        parse_urls(url, "ADSUM_URL")
    assert refused.value.field == "ADSUM_URL"
