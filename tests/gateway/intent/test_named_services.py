"""The services that a route names, and who may declare it."""

from __future__ import annotations

import pytest

from adsum.core.access.scopes import parse_scopes
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.named_services import named_services
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector


def _may_declare(hosts: tuple[str, ...], *scopes: str) -> bool:
    route = Route("r", hosts=hosts, to=(Target(Selector("orders")),))
    return named_services(route).may_declare(parse_scopes("scopes", scopes))


@pytest.mark.parametrize("hosts", [("orders",), ("orders.shop.example",), ("orders", "orders.example")])
def test_the_first_label_of_a_host_names_its_service(hosts: tuple[str, ...]) -> None:
    assert _may_declare(hosts, "operate:orders")
    assert not _may_declare(hosts, "operate:orders-2", "write:*")


@pytest.mark.parametrize("hosts", [(), ("*.shop.example",), ("orders", "users"), ("users.orders",)])
def test_a_route_needs_the_right_over_every_host_that_it_takes(hosts: tuple[str, ...]) -> None:
    assert not _may_declare(hosts, "operate:orders")
    assert _may_declare(hosts, "operate:*")


def test_an_address_belongs_to_no_service() -> None:
    assert not _may_declare(("10.0.0.1",), "operate:orders", "operate:10", "operate:1*")
    assert _may_declare(("10.0.0.1",), "operate:*")
