"""The names of the tokens of a node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access.tokens import check_token_name
from adsum.node_security.token_names import admin_token_name, node_token_name


def test_a_usual_name_of_a_node_is_in_the_name_of_its_token() -> None:
    assert admin_token_name("box-1.example") == "admin@box-1.example"
    assert node_token_name("box-1.example") == "node@box-1.example"


@given(st.text(max_size=400))
def test_every_name_of_a_node_gives_valid_names(node: str) -> None:
    check_token_name("name", admin_token_name(node))
    check_token_name("name", node_token_name(node))


@given(st.text(max_size=100), st.text(max_size=100))
def test_different_nodes_have_different_tokens(one: str, other: str) -> None:
    assert (admin_token_name(one) == admin_token_name(other)) == (one == other)


def test_names_that_differ_only_at_their_end_stay_apart() -> None:
    assert admin_token_name("a" * 80 + "1") != admin_token_name("a" * 80 + "2")
    assert admin_token_name("a b") != admin_token_name("a-b")
