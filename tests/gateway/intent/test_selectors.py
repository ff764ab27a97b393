from __future__ import annotations

from adsum.gateway.intent.selectors import Selector
from tests.gateway.echo_services import listing


def test_a_selector_has_a_name_that_describes_it() -> None:
    assert Selector("orders").name == "orders"
    assert Selector("orders", ("b", "a")).name == Selector("orders", ("a", "b")).name == "orders?tag=a&tag=b"
    assert Selector("orders", metadata={"version": "2", "a": "x&y=z"}).name == "orders?a=x%26y%3Dz&version=2"
    assert Selector("orders", metadata={"tag": "a"}).name != Selector("orders", ("a",)).name
    assert Selector("orders", without_tags=("b", "a")).name == "orders?tag!=a&tag!=b"
    without = Selector("orders", ("a",), without_metadata={"version": "2", "tag": "x"})
    assert without.name == "orders?tag=a&%74ag!=x&version!=2"


def test_a_selector_excludes_instances_by_tags_and_metadata() -> None:
    canary, plain = (listing("orders", id, tags=tags).instance for id, tags in (("o1", ("canary",)), ("o2", ("a",))))
    second, none = (
        listing("orders", id, metadata=metadata).instance for id, metadata in (("o3", {"version": "2"}), ("o4", {}))
    )
    stable = Selector("orders", without_tags=("canary", "b"))
    assert [stable.selects(instance) for instance in (canary, plain, none)] == [False, True, True]
    first_version = Selector("orders", without_metadata={"version": "2"})
    assert [first_version.selects(instance) for instance in (second, plain, none)] == [False, True, True]
    assert not stable.selects_all
    assert not first_version.selects_all
