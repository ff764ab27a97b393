"""What can be asked, written once: the router and the OpenAPI document are both derived from this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from adsum import wire
from adsum.core.catalog.documents import DocumentKind
from adsum.core.model import Status

BASE: Final = "/api/v1"
MAX_BODY_BYTES: Final = 64 * 1024
"""Bytes of a body; a larger one is refused with 413."""
MAX_INTENT_BODY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a body that says everything that is wanted of gateways; a larger one is refused with 413."""
MAX_RENEW_BODY_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a body that renews many leases; a larger one is refused with 413."""

EVENT_STREAM: Final = "text/event-stream"

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=wire.MAX_HISTORY)]
WatchToken = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
PositionText = Annotated[str, Meta(pattern=r"^[^:\s]+:[0-9]{1,19}$")]


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A value in the query: one, or if `many` any number; of a `keyed` one, `name[key]=value`, any number of keys."""

    name: str
    type: Any
    description: str
    repeatable: bool = False
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One operation. `answers` maps each good status to what its body is (None: nothing), `problems` lists the bad."""

    name: str
    method: str
    path: str
    summary: str
    responses: dict[int, type[Struct] | str | None]
    problems: tuple[int, ...] = ()
    query: tuple[QueryParameter, ...] = ()
    body: type[wire.RequestBody] | None = None
    max_body: int = MAX_BODY_BYTES
    description: str = ""
    needs_no_catalog: bool = False
    """Answered even while the catalog isn't loaded."""

    @property
    def is_endless(self) -> bool:
        """Whether its answer goes on for ever, so that there is no HEAD of it."""
        return EVENT_STREAM in self.responses.values()


PATH_PARAMETER_TYPES: Final[dict[str, Any]] = {
    "service": wire.Name,
    "id": wire.Id,
    "watch": WatchToken,
    "route": wire.Id,
    "consumer": wire.Id,
}

HOLDER_PARAMETER = QueryParameter("holder", wire.Text, "Must still be the lease's holder, if given")
REASON_PARAMETER = QueryParameter("reason", wire.Reason, "Why, for the record")
LONG_POLL_PARAMETERS = (
    QueryParameter("after", Count, "Answer when the revision is past this one, or `wait` is over"),
    QueryParameter("wait", wire.Wait, "Seconds to wait at most for what `after` or If-None-Match already know"),
)
FILTER_PARAMETERS = (
    QueryParameter("status", Status, "Only instances that stand so; may be repeated: any of them", repeatable=True),
    QueryParameter("tag", wire.Text, "Only instances with this tag; may be repeated: all of them", repeatable=True),
    QueryParameter("zone", wire.Text, "Only instances in this zone"),
    QueryParameter("metadata", wire.Reason, "Only instances with this pair", keyed=True),
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
        "Register an instance",
        {201: wire.WriteResult, 200: wire.WriteResult},
        (409, 422, 503, 507),
        body=wire.RegistrationBody,
        description="Idempotent; also renews. Without an address, the caller's is listed. The id of a process that lives at "
        "another place (its lease is held, and the place answers a probe) is refused with 409, unless `takeover` is "
        "`force`. Other processes of the service that were listed at the same place leave: they are superseded.",
    ),
    ApiOperation(
        "read_instance",
        "GET",
        _INSTANCE,
        "Everything known of one instance",
        {200: wire.InstanceDetail},
        (404, 422, 503),
    ),
    ApiOperation(
        "deregister",
        "DELETE",
        _INSTANCE,
        "Take an instance out",
        {200: wire.WriteResult},
        (409, 422, 503),
        (REASON_PARAMETER, HOLDER_PARAMETER),
        description="Idempotent: one that isn't there is out already.",
    ),
    ApiOperation(
        "renew",
        "POST",
        f"{_INSTANCE}/renew",
        "Renew one lease",
        {200: wire.WriteResult},
        (404, 409, 422, 503),
        (HOLDER_PARAMETER,),
    ),
    ApiOperation(
        "renew_many",
        "POST",
        f"{BASE}/renew",
        "Renew many leases",
        {200: wire.RenewalResult},
        (421, 422, 503),
        body=wire.RenewBody,
        max_body=MAX_RENEW_BODY_BYTES,
        description="Those that could not be renewed are listed in the answer: register them again.",
    ),
    ApiOperation(
        "override",
        "PUT",
        f"{_INSTANCE}/override",
        "Drain an instance, or put it in maintenance",
        {200: wire.WriteResult},
        (404, 409, 422, 503),
        body=wire.OverrideBody,
        description="With `wait`, answers when every cooperating consumer routes by it.",
    ),
    ApiOperation(
        "resume",
        "DELETE",
        f"{_INSTANCE}/override",
        "Let evidence speak again",
        {200: wire.WriteResult},
        (404, 422, 503),
        (REASON_PARAMETER,),
    ),
    ApiOperation(
        "list_services",
        "GET",
        _SERVICES,
        "Every known service",
        {200: wire.ServiceList, 304: None},
        (422, 503),
        LONG_POLL_PARAMETERS,
    ),
    ApiOperation(
        "read_service",
        "GET",
        _SERVICE,
        "A service and its instances",
        {200: wire.ServiceView, 304: None},
        (422, 503),
        (*FILTER_PARAMETERS, *LONG_POLL_PARAMETERS),
        description="A service that nobody has registered is empty, not an error: it may come.",
    ),
    ApiOperation(
        "forget",
        "DELETE",
        _SERVICE,
        "Forget a service that has no instance",
        {200: wire.WriteResult},
        (409, 422, 503),
        (REASON_PARAMETER,),
        description="Idempotent: one that isn't known is forgotten already. One with instances is refused with 409. It leaves "
        "lists, status, metrics and gateways; its history stays, and whoever watches it sees an empty service.",
    ),
    ApiOperation(
        "read_unacknowledged",
        "GET",
        f"{_SERVICE}/unacknowledged",
        "Which consumers of this node don't route by a revision yet",
        {200: wire.AcknowledgementReport},
        (421, 422, 503),
        (
            QueryParameter("revision", Count, "The revision that they should route by"),
            QueryParameter("wait", wire.Wait, "Seconds to wait at most until all do"),
            QueryParameter("consumer", wire.Id, "A consumer to look for here; may be repeated", repeatable=True),
            QueryParameter(
                "acknowledged", wire.Id, "A consumer that has acknowledged at another node", repeatable=True
            ),
            QueryParameter("goodbye", wire.Id, "A consumer that has said good-bye at another node", repeatable=True),
        ),
        description="What another node asks that drains an instance. What other nodes know counts only from a node.",
    ),
    ApiOperation(
        "read_changes",
        "GET",
        f"{BASE}/changes",
        "Why things are as they are",
        {200: wire.ChangeList},
        (422, 503),
        (
            QueryParameter("service", wire.Name, "Only changes of this service"),
            QueryParameter("id", wire.Id, "Only changes of instances with this id"),
            QueryParameter("limit", Limit, "How many at most; 100 unless told"),
        ),
    ),
    ApiOperation(
        "watch",
        "GET",
        f"{BASE}/watch",
        "Watch services as they change",
        {200: EVENT_STREAM},
        (422, 503),
        (
            QueryParameter(
                "service", wire.Name, "A service to watch; may be repeated; all, if none is given", repeatable=True
            ),
            QueryParameter(
                "since", PositionText, "EPOCH:REVISION to resume from; the header Last-Event-ID outranks it"
            ),
            QueryParameter("acks", bool, "A cooperating consumer: it says what it has applied, and drains wait for it"),
            QueryParameter("consumer", wire.Id, "Its id, the same over all its connections and for its whole life"),
            QueryParameter("name", wire.Text, "Its name, for people"),
        ),
        description="Server-Sent Events: open, then groups of service and change, each ended by synced; see the guide.",
    ),
    ApiOperation(
        "acknowledge",
        "POST",
        f"{BASE}/watches/{{watch}}/acknowledge",
        "A cooperating consumer routes by a revision from now on",
        {204: None},
        (404, 422, 503),
        body=wire.AcknowledgementBody,
    ),
    ApiOperation(
        "say_goodbye",
        "DELETE",
        f"{BASE}/consumers/{{consumer}}",
        "A cooperating consumer ends, and is not waited for",
        {204: None},
        (422,),
        (
            QueryParameter(
                "service", wire.Name, "Only for this service; may be repeated; all, if none is given", repeatable=True
            ),
        ),
        description="Idempotent, and also for a consumer that this node does not know: it may be connected to another one. "
        "It may arrive late, so a program that goes on needs another id.",
        needs_no_catalog=True,
    ),
    ApiOperation("list_routes", "GET", f"{BASE}/routes", "Every route, by name", {200: wire.RouteList}, (503,)),
    ApiOperation("read_route", "GET", _ROUTE, "A route", {200: wire.RouteView}, (404, 422, 503)),
    ApiOperation(
        "put_route",
        "PUT",
        _ROUTE,
        "Declare a route",
        {200: wire.WriteResult},
        (422, 503, 507),
        (REASON_PARAMETER,),
        body=wire.RouteBody,
        description="Idempotent. A route that can't be is refused, and nothing changes.",
    ),
    ApiOperation(
        "remove_route",
        "DELETE",
        _ROUTE,
        "Withdraw a route",
        {200: wire.WriteResult},
        (422, 503),
        (REASON_PARAMETER,),
        description="Idempotent: one that isn't there is gone already.",
    ),
    ApiOperation(
        "check_route",
        "POST",
        f"{BASE}/check-route",
        "Which route a request would take, and why",
        {200: wire.VerdictView},
        (422, 503),
        body=wire.CheckRouteBody,
        description="As at a gateway with default routes, or, with `default_routes` false, at one without.",
    ),
    ApiOperation(
        "list_upstreams", "GET", f"{BASE}/upstreams", "Every upstream declared", {200: wire.UpstreamList}, (503,)
    ),
    ApiOperation(
        "read_upstream", "GET", _UPSTREAM, "How gateways treat a service", {200: wire.UpstreamView}, (404, 422, 503)
    ),
    ApiOperation(
        "put_upstream",
        "PUT",
        _UPSTREAM,
        "Say how gateways treat a service",
        {200: wire.WriteResult},
        (422, 503, 507),
        (REASON_PARAMETER,),
        body=wire.UpstreamBody,
    ),
    ApiOperation(
        "remove_upstream",
        "DELETE",
        _UPSTREAM,
        "Let gateways treat a service as any other",
        {200: wire.WriteResult},
        (422, 503),
        (REASON_PARAMETER,),
    ),
    ApiOperation(
        "replace_intent",
        "PUT",
        f"{BASE}/intent",
        "Declare all routes and upstreams at once",
        {200: wire.WriteResult},
        (422, 503, 507),
        (
            QueryParameter("prune", bool, "Withdraw everything if the body names no route and no upstream"),
            REASON_PARAMETER,
        ),
        body=wire.IntentBody,
        max_body=MAX_INTENT_BODY_BYTES,
        description="Those that are not in the body are withdrawn. All of it is applied, or nothing. A body that names "
        "nothing is refused, unless `prune` is true.",
    ),
    ApiOperation(
        "read_edits",
        "GET",
        f"{BASE}/intent/history",
        "What became of routes and upstreams, and why",
        {200: wire.EditList},
        (422, 503),
        (
            QueryParameter("document", DocumentKind, "Only of routes, or only of upstreams"),
            QueryParameter("name", wire.Id, "Only of the route of this name, and of the upstream of this service"),
            QueryParameter("limit", Limit, "How many at most; 100 unless told"),
        ),
    ),
    ApiOperation("read_status", "GET", f"{BASE}/status", "This node", {200: wire.NodeStatus}, needs_no_catalog=True),
    ApiOperation(
        "openapi", "GET", f"{BASE}/openapi.json", "This document", {200: "application/json"}, needs_no_catalog=True
    ),
    ApiOperation(
        "docs", "GET", "/docs", "This document, for people", {200: "text/html; charset=utf-8"}, needs_no_catalog=True
    ),
    ApiOperation("metrics", "GET", "/metrics", "Metrics for Prometheus", {200: "text/plain"}, needs_no_catalog=True),
    ApiOperation("healthz", "GET", "/healthz", "Whether the process lives", {200: "text/plain"}, needs_no_catalog=True),
    ApiOperation(
        "readyz",
        "GET",
        "/readyz",
        "Whether the catalog is loaded and the node serves it",
        {200: "text/plain"},
        (503,),
        needs_no_catalog=True,
    ),
    ApiOperation("home", "GET", "/", "Leads to the docs", {307: None}, needs_no_catalog=True),
)
