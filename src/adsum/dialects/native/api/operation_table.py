"""The table of operations. The router, the OpenAPI document and the docs page are derived from it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from adsum import wire
from adsum.core.access.actions import Action
from adsum.core.catalog.documents import DocumentKind
from adsum.core.model import Status
from adsum.dialects.native.api.operation import BASE, EVENT_STREAM, ApiOperation, QueryParameter
from adsum.dialects.native.api.token_operations import TOKEN_OPERATIONS
from adsum.wire.tokens import InviteId, TokenName

MAX_INTENT_BODY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a body with all routes and upstreams. A larger one is refused with 413."""
MAX_RENEW_BODY_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a body that renews many leases. A larger one is refused with 413."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=wire.MAX_CHANGES_PER_RESPONSE)]
WatchToken = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
PositionText = Annotated[str, Meta(pattern=r"^[^:\s]+:[0-9]{1,19}$")]

PATH_PARAMETER_TYPES: Final[dict[str, Any]] = {
    "service": wire.Name,
    "id": wire.Id,
    "watch": WatchToken,
    "route": wire.Id,
    "consumer": wire.Id,
    "token": TokenName,
    "invite": InviteId,
}

HOLDER_PARAMETER = QueryParameter(
    "holder", wire.Text, "The holder of the lease. If given, the lease must still have this holder"
)
REASON_PARAMETER = QueryParameter("reason", wire.Reason, "Why the change is made; kept in the history")
LONG_POLL_PARAMETERS = (
    QueryParameter(
        "after", Count, "The revision that the caller has: respond when there is a later one, or when `wait` is over"
    ),
    QueryParameter("wait", wire.Wait, "Seconds to wait, at most, for a change after `after` or If-None-Match"),
)
FILTER_PARAMETERS = (
    QueryParameter("status", Status, "Only instances with this status. If repeated: with any of them", repeatable=True),
    QueryParameter("tag", wire.Text, "Only instances with this tag. If repeated: with all of them", repeatable=True),
    QueryParameter("zone", wire.Text, "Only instances in this zone"),
    QueryParameter("metadata", wire.Reason, "Only instances with this metadata entry", keyed=True),
)

_SERVICES = f"{BASE}/services"
_SERVICE = f"{_SERVICES}/{{service}}"
_ROUTE = f"{BASE}/routes/{{route}}"
_UPSTREAM = f"{BASE}/upstreams/{{service}}"
_INSTANCE = f"{_SERVICE}/instances/{{id}}"

OPERATIONS: Final = (
    ApiOperation(
        "register",
        "PUT",
        _INSTANCE,
        Action.REGISTER,
        "Register an instance",
        {201: wire.WriteResult, 200: wire.WriteResult},
        (409, 422, 503, 507),
        body=wire.RegistrationBody,
        description="Idempotent. Also renews the lease. Without `address`, the address of the caller is listed. If a "
        "live process has the id at another address and port (its lease is held, and it answers a probe),"
        " the request is refused with 409, unless `takeover` is `force`. Instances of the service that "
        "were listed at the same address and port are removed as superseded.",
    ),
    ApiOperation(
        "read_instance",
        "GET",
        _INSTANCE,
        Action.READ,
        "Read an instance with its lease, checks and override",
        {200: wire.InstanceDetail},
        (404, 422, 503),
    ),
    ApiOperation(
        "deregister",
        "DELETE",
        _INSTANCE,
        Action.DEREGISTER,
        "Deregister an instance",
        {200: wire.WriteResult},
        (409, 422, 503),
        (REASON_PARAMETER, HOLDER_PARAMETER),
        description="Idempotent: succeeds if the instance is not registered.",
    ),
    ApiOperation(
        "renew",
        "POST",
        f"{_INSTANCE}/renew",
        Action.RENEW,
        "Renew one lease",
        {200: wire.WriteResult},
        (404, 409, 422, 503),
        (HOLDER_PARAMETER,),
    ),
    ApiOperation(
        "renew_many",
        "POST",
        f"{BASE}/renew",
        Action.RENEW,
        "Renew many leases",
        {200: wire.RenewalResult},
        (421, 422, 503),
        body=wire.RenewBody,
        max_body=MAX_RENEW_BODY_BYTES,
        description="The response lists the leases that could not be renewed: register these instances again.",
    ),
    ApiOperation(
        "override",
        "PUT",
        f"{_INSTANCE}/override",
        Action.OVERRIDE,
        "Drain an instance, or put it in maintenance",
        {200: wire.WriteResult},
        (404, 409, 422, 503),
        body=wire.OverrideBody,
        description="With `wait`, responds when every cooperating consumer has acknowledged the change.",
    ),
    ApiOperation(
        "resume",
        "DELETE",
        f"{_INSTANCE}/override",
        Action.RESUME,
        "Clear an override: lease and checks decide the status again",
        {200: wire.WriteResult},
        (404, 422, 503),
        (REASON_PARAMETER,),
    ),
    ApiOperation(
        "list_services",
        "GET",
        _SERVICES,
        Action.LIST,
        "List all services",
        {200: wire.ServiceList, 304: None},
        (422, 503),
        LONG_POLL_PARAMETERS,
    ),
    ApiOperation(
        "read_service",
        "GET",
        _SERVICE,
        Action.READ,
        "Read a service and its instances",
        {200: wire.ServiceView, 304: None},
        (422, 503),
        (*FILTER_PARAMETERS, *LONG_POLL_PARAMETERS),
        description="A service without registrations is empty, and not an error: instances may register later.",
    ),
    ApiOperation(
        "forget",
        "DELETE",
        _SERVICE,
        Action.FORGET,
        "Forget a service that has no instance",
        {200: wire.WriteResult},
        (409, 422, 503),
        (REASON_PARAMETER,),
        description="Idempotent: succeeds if the service is not known. Refused with 409 if the service has instances."
        " The service disappears from lists, status, metrics and gateways. Its history stays. A watch of "
        "it shows an empty service.",
    ),
    ApiOperation(
        "read_unacknowledged",
        "GET",
        f"{_SERVICE}/unacknowledged",
        Action.FORWARD,
        "List the consumers of this node that have not acknowledged a revision",
        {200: wire.AcknowledgementReport},
        (421, 422, 503),
        (
            QueryParameter("revision", Count, "The revision to acknowledge"),
            QueryParameter("wait", wire.Wait, "Seconds to wait, at most, until all have acknowledged it"),
            QueryParameter(
                "consumer", wire.Id, "The id of a consumer to look for on this node; may be repeated", repeatable=True
            ),
            QueryParameter(
                "acknowledged",
                wire.Id,
                "The id of a consumer that has acknowledged at another node; may be repeated",
                repeatable=True,
            ),
            QueryParameter(
                "goodbye",
                wire.Id,
                "The id of a consumer that has said good-bye at another node; may be repeated",
                repeatable=True,
            ),
        ),
        description="Nodes call this while one of them drains an instance. `acknowledged` and `goodbye` count only "
        "from another node.",
    ),
    ApiOperation(
        "read_changes",
        "GET",
        f"{BASE}/changes",
        Action.READ_HISTORY,
        "List recorded changes, newest first, each with cause, actor and reason",
        {200: wire.ChangeList},
        (422, 503),
        (
            QueryParameter("service", wire.Name, "Only changes of this service"),
            QueryParameter("id", wire.Id, "Only changes of instances with this id"),
            QueryParameter("limit", Limit, "The number of changes, at most; 100 by default"),
        ),
    ),
    ApiOperation(
        "watch",
        "GET",
        f"{BASE}/watch",
        Action.WATCH,
        "Watch services",
        {200: EVENT_STREAM},
        (422, 503),
        (
            QueryParameter(
                "service", wire.Name, "A service to watch; may be repeated. Without it, all services", repeatable=True
            ),
            QueryParameter(
                "since", PositionText, "EPOCH:REVISION to resume from. The header Last-Event-ID has precedence"
            ),
            QueryParameter(
                "acks", bool, "True for a cooperating consumer: it acknowledges revisions, and drains wait for it"
            ),
            QueryParameter(
                "consumer",
                wire.Id,
                "The id of the consumer: the same on all its connections, from its start to its end",
            ),
            QueryParameter("name", wire.Text, "The name of the consumer, for people"),
        ),
        description="Server-Sent Events. The first event is `open`. Groups of `service` and `change` events follow; "
        "`synced` ends each group.",
    ),
    ApiOperation(
        "acknowledge",
        "POST",
        f"{BASE}/watches/{{watch}}/acknowledge",
        Action.ACKNOWLEDGE,
        "Acknowledge a revision: the consumer routes by it from now on",
        {204: None},
        (404, 422, 503),
        body=wire.AcknowledgementBody,
    ),
    ApiOperation(
        "say_goodbye",
        "DELETE",
        f"{BASE}/consumers/{{consumer}}",
        Action.ACKNOWLEDGE,
        "End a cooperating consumer: drains no longer wait for it",
        {204: None},
        (422,),
        (
            QueryParameter(
                "service",
                wire.Name,
                "Only for this service; may be repeated. Without it, for all services",
                repeatable=True,
            ),
        ),
        description="Idempotent. Succeeds for a consumer that this node does not know, since it may be connected to "
        "another node. The request may arrive late, so a program that goes on needs a new id.",
        needs_no_catalog=True,
    ),
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
    ApiOperation(
        "read_status",
        "GET",
        f"{BASE}/status",
        Action.READ_NODE,
        "Read the status of this node",
        {200: wire.NodeStatus},
        needs_no_catalog=True,
    ),
    ApiOperation(
        "openapi",
        "GET",
        f"{BASE}/openapi.json",
        Action.PROBE,
        "This document",
        {200: "application/json"},
        needs_no_catalog=True,
    ),
    ApiOperation(
        "docs",
        "GET",
        "/docs",
        Action.PROBE,
        "This document as a page",
        {200: "text/html; charset=utf-8"},
        needs_no_catalog=True,
    ),
    ApiOperation(
        "metrics",
        "GET",
        "/metrics",
        Action.READ_NODE,
        "Metrics for Prometheus",
        {200: "text/plain"},
        needs_no_catalog=True,
    ),
    ApiOperation(
        "healthz",
        "GET",
        "/healthz",
        Action.PROBE,
        "Liveness: 200 while the process runs",
        {200: "text/plain"},
        needs_no_catalog=True,
    ),
    ApiOperation(
        "readyz",
        "GET",
        "/readyz",
        Action.PROBE,
        "Readiness: 200 while the node serves its catalog",
        {200: "text/plain"},
        (503,),
        needs_no_catalog=True,
    ),
    ApiOperation("home", "GET", "/", Action.PROBE, "Redirect to the docs page", {307: None}, needs_no_catalog=True),
    *TOKEN_OPERATIONS,
)
