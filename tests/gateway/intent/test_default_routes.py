from __future__ import annotations

import pytest

from adsum.core.errors import Invalid
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector

TO = (Target(Selector("orders")),)


def test_default_routes_do_not_apply_to_hosts_of_declared_routes() -> None:
    declared = [Route("r", hosts=("*.shop.example", "api.example"), to=TO), Route("any", to=TO)]
    assert not default_routes.apply_to_host("a.shop.example", declared)
    assert not default_routes.apply_to_host("api.example", declared)
    assert default_routes.apply_to_host("localhost", declared)
    with pytest.raises(Invalid, match="default:"):
        default_routes.check_declared_name("name", "default:orders")
