from __future__ import annotations

from random import Random

import pytest

from adsum.client.native.nodes import HUNG_NODE_PENALTY, RegistryNodes, parse_urls
from adsum.core.errors import Invalid

URLS = ["http://a:1", "http://b:1", "http://c:1"]


def test_a_node_that_answers_is_tried_first_again() -> None:
    nodes = RegistryNodes(URLS, Random(1))
    first = nodes.current(0.0)
    nodes.mark_answered(first)
    assert nodes.current(0.0) == first


def test_a_node_that_failed_is_tried_last() -> None:
    nodes = RegistryNodes(URLS, Random(1))
    first = nodes.current(0.0)
    nodes.mark_failed(first)
    assert nodes.order(0.0)[-1] == first
    assert sorted(nodes.order(0.0)) == URLS


def test_a_second_failure_of_a_node_changes_nothing() -> None:
    nodes = RegistryNodes(URLS, Random(1))
    first = nodes.current(0.0)
    nodes.mark_failed(first)
    order = nodes.order(0.0)
    nodes.mark_failed(first)
    assert nodes.order(0.0) == order


def test_a_node_that_hung_is_tried_after_one_that_failed_later_until_its_penalty_is_over() -> None:
    nodes = RegistryNodes(URLS, Random(1))
    one, two, three = nodes.order(0.0)
    nodes.mark_hung(one, 0.0)
    nodes.mark_failed(two)
    assert nodes.order(HUNG_NODE_PENALTY - 1.0) == [three, two, one]
    nodes.mark_failed(three)
    assert nodes.order(HUNG_NODE_PENALTY - 1.0) == [two, three, one]
    assert nodes.order(HUNG_NODE_PENALTY) == [one, two, three]


def test_a_node_that_answered_after_it_hung_ranks_like_one_that_failed() -> None:
    nodes = RegistryNodes(URLS, Random(1))
    one, two, three = nodes.order(0.0)
    nodes.mark_hung(one, 0.0)
    nodes.mark_failed(two)
    nodes.mark_answered(one)
    assert nodes.order(1.0) == [three, one, two]


def test_clients_spread_over_the_nodes() -> None:
    assert {RegistryNodes(URLS, Random(seed)).current(0.0) for seed in range(20)} == set(URLS)


def test_addresses_are_a_list_or_separated_by_commas() -> None:
    assert parse_urls("http://a:1/, http://b:1,http://a:1") == ("http://a:1", "http://b:1")
    assert parse_urls(["https://r.example"]) == ("https://r.example",)


@pytest.mark.parametrize(
    "url", ["", ",", "a:1", "http://", "http://a:99999", "http://a:0", "http://a/?x=1", "localhost"]
)
def test_an_invalid_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(Invalid, match="http://127") as refused:
        parse_urls(url, "ADSUM_URL")
    assert refused.value.field == "ADSUM_URL"
