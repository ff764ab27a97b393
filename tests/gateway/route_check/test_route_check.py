from __future__ import annotations

from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import HeaderMatch, MatchKind
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.route_check.route_check import CheckedRequest, check_route

EXACT = MatchKind.EXACT


def test_blanks_around_a_headers_value_are_not_part_of_it() -> None:
    route = Route("r", headers=(HeaderMatch("x-v", EXACT, "1,2"),), to=(Target(Selector("orders")),))
    request = CheckedRequest(headers=(("X-V", " \t1"), ("x-v", "2\t")))
    assert check_route(Intent((route,)), {"orders"}, request).route == route
