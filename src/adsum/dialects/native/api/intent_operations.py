"""The part of the table of operations about routes and upstreams, and about recorded edits."""

from __future__ import annotations

from typing import Final

from adsum import wire
from adsum.core.access.actions import Action
from adsum.core.catalog.documents import DocumentKind
from adsum.dialects.native.api.operation import BASE, ApiOperation, QueryParameter
from adsum.dialects.native.api.parameters import REASON_PARAMETER, Limit

MAX_INTENT_BODY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a body with all routes and upstreams. A larger one is refused with 413."""

_ROUTE = f"{BASE}/routes/{{route}}"
_UPSTREAM = f"{BASE}/upstreams/{{service}}"

INTENT_OPERATIONS: Final = (
    ApiOperation(
        "list_routes",
        "GET",
        f"{BASE}/routes",
        Action.READ_INTENT,
        "List all routes, by name",
        {200: wire.RouteList},
        (503,),
    ),
    ApiOperation(
        "read_route", "GET", _ROUTE, Action.READ_INTENT, "Read a route", {200: wire.RouteView}, (404, 422, 503)
    ),
    ApiOperation(
        "put_route",
        "PUT",
        _ROUTE,
        Action.DECLARE,
        "Declare a route",
        {200: wire.WriteResult},
        (422, 503, 507),
        (REASON_PARAMETER,),
        body=wire.RouteBody,
        description="Idempotent. An invalid route is refused, and nothing changes.",
    ),
    ApiOperation(
        "remove_route",
        "DELETE",
        _ROUTE,
        Action.DECLARE,
        "Withdraw a route",
        {200: wire.WriteResult},
        (422, 503),
        (REASON_PARAMETER,),
        description="Idempotent: succeeds if there is no such route.",
    ),
    ApiOperation(
        "check_route",
        "POST",
        f"{BASE}/check-route",
        Action.READ_INTENT,
        "Check which route a request takes, and why",
        {200: wire.VerdictView},
        (422, 503),
        body=wire.CheckRouteBody,
        description="Returns what a gateway with default routes does, or, with `default_routes` false, one without "
        "them.",
    ),
    ApiOperation(
        "list_upstreams",
        "GET",
        f"{BASE}/upstreams",
        Action.READ_INTENT,
        "List all upstreams, by service",
        {200: wire.UpstreamList},
        (503,),
    ),
    ApiOperation(
        "read_upstream",
        "GET",
        _UPSTREAM,
        Action.READ_INTENT,
        "Read the upstream of a service",
        {200: wire.UpstreamView},
        (404, 422, 503),
    ),
    ApiOperation(
        "put_upstream",
        "PUT",
        _UPSTREAM,
        Action.DECLARE,
        "Declare the upstream of a service: how gateways treat it",
        {200: wire.WriteResult},
        (422, 503, 507),
        (REASON_PARAMETER,),
        body=wire.UpstreamBody,
    ),
    ApiOperation(
        "remove_upstream",
        "DELETE",
        _UPSTREAM,
        Action.DECLARE,
        "Withdraw the upstream of a service: gateways use the defaults",
        {200: wire.WriteResult},
        (422, 503),
        (REASON_PARAMETER,),
    ),
    ApiOperation(
        "replace_intent",
        "PUT",
        f"{BASE}/intent",
        Action.REPLACE_INTENT,
        "Declare all routes and upstreams at once",
        {200: wire.WriteResult},
        (422, 503, 507),
        (
            QueryParameter("prune", bool, "Withdraw everything if the body has no route and no upstream"),
            REASON_PARAMETER,
        ),
        body=wire.IntentBody,
        max_body=MAX_INTENT_BODY_BYTES,
        description="Routes and upstreams that are not in the body are withdrawn. All of it is applied, or nothing. "
        "An empty body is refused, unless `prune` is true.",
    ),
    ApiOperation(
        "read_edits",
        "GET",
        f"{BASE}/intent/history",
        Action.READ_EDITS,
        "List recorded edits of routes and upstreams, or of tokens, newest first",
        {200: wire.EditList},
        (422, 503),
        (
            QueryParameter(
                "document",
                DocumentKind,
                "Only edits of this kind; by default of routes and upstreams. Those of "
                "tokens and invites need the scope admin",
            ),
            QueryParameter(
                "name", wire.Id, "Only edits of the route of this name, and of the upstream of this service"
            ),
            QueryParameter("limit", Limit, "The number of edits, at most; 100 by default"),
        ),
    ),
)
