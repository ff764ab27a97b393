"""Contradictions between the URLs that nodes advertise."""

from __future__ import annotations

import pytest

from adsum.core.nodes.advertised_urls import UrlProblems, find_url_problems
from adsum.core.nodes.sharding import Peer


def at(*urls: str) -> list[Peer]:
    """Nodes n1, n2 … that advertise these URLs."""
    return [Peer(f"id{number}", f"n{number}", url) for number, url in enumerate(urls, 1)]


HOME = "http://127.0.0.1:23786"


@pytest.mark.parametrize(
    "urls",
    [
        (),
        (HOME,),
        ("http://10.0.0.1:23786", "http://10.0.0.2:23786"),
        (HOME, "http://127.0.0.1:23787", "http://[::1]:23788", "http://localhost:23789"),
        ("", ""),
        ("https://10.0.0.1:23786", "https://10.0.0.2:23786", ""),
        ("http://10.0.0.1:23786", "http://reg-2.example:23786", "http://[", "?"),
    ],
)
def test_different_addresses_on_one_or_several_hosts_are_no_problem(urls: tuple[str, ...]) -> None:
    assert find_url_problems(at(*urls)) == []


def test_two_nodes_at_one_address_are_a_problem_with_a_remedy() -> None:
    (problem,) = find_url_problems(
        at("http://10.0.0.3:1", HOME.replace("127.0.0.1", "10.0.0.1"), "http://10.0.0.1:23786/")
    )
    assert problem.startswith("n2 and n3 advertise the same address http://10.0.0.1:23786,")
    assert "--advertise" in problem


@pytest.mark.parametrize("url", [HOME, "http://[::1]:23786", "http://localhost:23786"])
def test_a_loopback_address_among_remote_ones_is_a_problem_with_a_remedy(url: str) -> None:
    (problem,) = find_url_problems(at("http://10.0.0.1:23786", url))
    assert problem.startswith(f"n2 advertises {url}, which no other host reaches, while n1 is at http://10.0.0.1:23786")
    assert "--advertise" in problem


def test_a_problem_is_reported_once_and_only_if_it_lasts() -> None:
    problems, same_url, one_node = UrlProblems(10.0), at(HOME, HOME), at(HOME)
    assert not problems.update(same_url, 100.0)
    assert not problems.update(one_node, 105.0), "the other one was dead"
    assert not problems.update(same_url, 109.0)
    assert not problems.update(same_url, 118.0)
    assert not problems.confirmed
    assert problems.update(same_url, 119.0) == find_url_problems(same_url) == problems.confirmed
    assert not problems.update(same_url, 120.0)
    assert problems.confirmed
    problems.update(one_node, 121.0)
    assert not problems.confirmed


def test_a_node_without_tls_beside_one_with_tls_is_a_problem_with_a_remedy() -> None:
    (problem,) = find_url_problems(at("https://10.0.0.1:1", "http://10.0.0.2:1", "https://10.0.0.3:1"))
    assert problem.startswith("n2 at http://10.0.0.2:1 serves without TLS and tokens, while n1 at https://10.0.0.1:1")
    assert "start them with --secure" in problem
