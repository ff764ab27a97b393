"""What can be asked, written once: the router and the OpenAPI document are both derived from this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from adsum import wire
from adsum.core.catalog.documents import DocumentKind
from adsum.core.model import Status

BASE: Final = "/api/v1"
MAX_SMALL_BODY: Final = 64 * 1024
"""Bytes of a body; a larger one is refused with 413."""
MAX_INTENT_BODY: Final = 8 * 1024 * 1024
"""Bytes of a body that says everything that is wanted of gateways; a larger one is refused with 413."""
MAX_RENEW_BODY: Final = 2 * 1024 * 1024
"""Bytes of a body that renews many leases; a larger one is refused with 413."""

EVENTS: Final = "text/event-stream"

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=wire.MAX_HISTORY)]
Token = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
Position = Annotated[str, Meta(pattern=r"^[^:\s]+:[0-9]{1,19}$")]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value in the query: one, or if `many` any number; of a `keyed` one, `name[key]=value`, any number of keys."""

    name: str
    kind: Any
    text: str
    many: bool = False
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `answers` maps each good status to what its body is (None: nothing), `problems` lists the bad."""

    operation: str
    method: str
    path: str
    summary: str
    answers: dict[int, type[Struct] | str | None]
    problems: tuple[int, ...] = ()
    query: tuple[Parameter, ...] = ()
    body: type[wire.Request] | None = None
    max_body: int = MAX_SMALL_BODY
    text: str = ""
    early: bool = False
    """Answered even while the catalog isn't loaded."""

    @property
    def endless(self) -> bool:
        """Whether its answer goes on for ever, so that there is no HEAD of it."""
        return EVENTS in self.answers.values()


PATH_KINDS: Final[dict[str, Any]] = {
    "service": wire.Name,
    "id": wire.Id,
    "watch": Token,
    "route": wire.Id,
    "consumer": wire.Id,
}

HOLDER = Parameter("holder", wire.Text, "Must still be the lease's holder, if given")
REASON = Parameter("reason", wire.Reason, "Why, for the record")
CONDITIONS = (
    Parameter("after", Count, "Answer when the revision is past this one, or `wait` is over"),
    Parameter("wait", wire.Wait, "Seconds to wait at most for what `after` or If-None-Match already know"),
)
FILTERS = (
    Parameter("status", Status, "Only instances that stand so; may be repeated: any of them", many=True),
    Parameter("tag", wire.Text, "Only instances with this tag; may be repeated: all of them", many=True),
    Parameter("zone", wire.Text, "Only instances in this zone"),
    Parameter("metadata", wire.Reason, "Only instances with this pair", keyed=True),
)

_SERVICES = f"{BASE}/services"
_SERVICE = f"{_SERVICES}/{{service}}"
_ROUTE = f"{BASE}/routes/{{route}}"
_UPSTREAM = f"{BASE}/upstreams/{{service}}"
_INSTANCE = f"{_SERVICE}/instances/{{id}}"

ROUTES: Final = (
    Route(
        "register",
        "PUT",
        _INSTANCE,
        "Register an instance",
        {201: wire.Written, 200: wire.Written},
        (409, 422, 503, 507),
        body=wire.RegistrationBody,
        text="Idempotent; also renews. Without an address, the caller's is listed. The id of a process that lives at "
        "another place (its lease is held, and the place answers a probe) is refused with 409, unless `takeover` is "
        "`force`. Other processes of the service that were listed at the same place leave: they are superseded.",
    ),
    Route(
        "read_instance",
        "GET",
        _INSTANCE,
        "Everything known of one instance",
        {200: wire.InstanceDetail},
        (404, 422, 503),
    ),
    Route(
        "deregister",
        "DELETE",
        _INSTANCE,
        "Take an instance out",
        {200: wire.Written},
        (409, 422, 503),
        (REASON, HOLDER),
        text="Idempotent: one that isn't there is out already.",
    ),
    Route(
        "renew",
        "POST",
        f"{_INSTANCE}/renew",
        "Renew one lease",
        {200: wire.Written},
        (404, 409, 422, 503),
        (HOLDER,),
    ),
    Route(
        "renew_many",
        "POST",
        f"{BASE}/renew",
        "Renew many leases",
        {200: wire.Renewed},
        (421, 422, 503),
        body=wire.RenewBody,
        max_body=MAX_RENEW_BODY,
        text="Those that could not be renewed are listed in the answer: register them again.",
    ),
    Route(
        "override",
        "PUT",
        f"{_INSTANCE}/override",
        "Drain an instance, or put it in maintenance",
        {200: wire.Written},
        (404, 409, 422, 503),
        body=wire.OverrideBody,
        text="With `wait`, answers when every cooperating consumer routes by it.",
    ),
    Route(
        "resume",
        "DELETE",
        f"{_INSTANCE}/override",
        "Let evidence speak again",
        {200: wire.Written},
        (404, 422, 503),
        (REASON,),
    ),
    Route(
        "list_services",
        "GET",
        _SERVICES,
        "Every known service",
        {200: wire.ServiceList, 304: None},
        (422, 503),
        CONDITIONS,
    ),
    Route(
        "read_service",
        "GET",
        _SERVICE,
        "A service and its instances",
        {200: wire.ServiceView, 304: None},
        (422, 503),
        (*FILTERS, *CONDITIONS),
        text="A service that nobody has registered is empty, not an error: it may come.",
    ),
    Route(
        "forget",
        "DELETE",
        _SERVICE,
        "Forget a service that has no instance",
        {200: wire.Written},
        (409, 422, 503),
        (REASON,),
        text="Idempotent: one that isn't known is forgotten already. One with instances is refused with 409. It leaves "
        "lists, status, metrics and gateways; its history stays, and whoever watches it sees an empty service.",
    ),
    Route(
        "unaware",
        "GET",
        f"{_SERVICE}/unaware",
        "Which consumers of this node don't route by a revision yet",
        {200: wire.Unaware},
        (421, 422, 503),
        (
            Parameter("revision", Count, "The revision that they should route by"),
            Parameter("wait", wire.Wait, "Seconds to wait at most until all do"),
            Parameter("consumer", wire.Id, "A consumer to look for here; may be repeated", many=True),
            Parameter("acknowledged", wire.Id, "A consumer that has acknowledged at another node", many=True),
            Parameter("gone", wire.Id, "A consumer that has said good-bye at another node", many=True),
        ),
        text="What another node asks that drains an instance. What other nodes know counts only from a node.",
    ),
    Route(
        "read_changes",
        "GET",
        f"{BASE}/changes",
        "Why things are as they are",
        {200: wire.ChangeList},
        (422, 503),
        (
            Parameter("service", wire.Name, "Only changes of this service"),
            Parameter("id", wire.Id, "Only changes of instances with this id"),
            Parameter("limit", Limit, "How many at most; 100 unless told"),
        ),
    ),
    Route(
        "watch",
        "GET",
        f"{BASE}/watch",
        "Watch services as they change",
        {200: EVENTS},
        (422, 503),
        (
            Parameter("service", wire.Name, "A service to watch; may be repeated; all, if none is given", many=True),
            Parameter("since", Position, "EPOCH:REVISION to resume from; the header Last-Event-ID outranks it"),
            Parameter("acks", bool, "A cooperating consumer: it says what it has applied, and drains wait for it"),
            Parameter("consumer", wire.Id, "Its id, the same over all its connections and for its whole life"),
            Parameter("name", wire.Text, "Its name, for people"),
        ),
        text="Server-Sent Events: open, then groups of service and change, each ended by synced; see the guide.",
    ),
    Route(
        "applied",
        "POST",
        f"{BASE}/watches/{{watch}}/applied",
        "A cooperating consumer routes by a revision from now on",
        {204: None},
        (404, 422, 503),
        body=wire.AppliedBody,
    ),
    Route(
        "goodbye",
        "DELETE",
        f"{BASE}/consumers/{{consumer}}",
        "A cooperating consumer ends, and is not waited for",
        {204: None},
        (422,),
        (Parameter("service", wire.Name, "Only for this service; may be repeated; all, if none is given", many=True),),
        text="Idempotent, and also for a consumer that this node does not know: it may be connected to another one. "
        "It may arrive late, so a program that goes on needs another id.",
        early=True,
    ),
    Route("list_routes", "GET", f"{BASE}/routes", "Every route, by name", {200: wire.RouteList}, (503,)),
    Route("read_route", "GET", _ROUTE, "A route", {200: wire.RouteView}, (404, 422, 503)),
    Route(
        "put_route",
        "PUT",
        _ROUTE,
        "Declare a route",
        {200: wire.Written},
        (422, 503, 507),
        (REASON,),
        body=wire.RouteBody,
        text="Idempotent. A route that can't be is refused, and nothing changes.",
    ),
    Route(
        "remove_route",
        "DELETE",
        _ROUTE,
        "Withdraw a route",
        {200: wire.Written},
        (422, 503),
        (REASON,),
        text="Idempotent: one that isn't there is gone already.",
    ),
    Route(
        "check_route",
        "POST",
        f"{BASE}/check-route",
        "Which route a request would take, and why",
        {200: wire.VerdictView},
        (422, 503),
        body=wire.CheckRouteBody,
        text="As at a gateway with default routes, or, with `default_routes` false, at one without.",
    ),
    Route("list_upstreams", "GET", f"{BASE}/upstreams", "Every upstream declared", {200: wire.UpstreamList}, (503,)),
    Route("read_upstream", "GET", _UPSTREAM, "How gateways treat a service", {200: wire.UpstreamView}, (404, 422, 503)),
    Route(
        "put_upstream",
        "PUT",
        _UPSTREAM,
        "Say how gateways treat a service",
        {200: wire.Written},
        (422, 503, 507),
        (REASON,),
        body=wire.UpstreamBody,
    ),
    Route(
        "remove_upstream",
        "DELETE",
        _UPSTREAM,
        "Let gateways treat a service as any other",
        {200: wire.Written},
        (422, 503),
        (REASON,),
    ),
    Route(
        "replace_intent",
        "PUT",
        f"{BASE}/intent",
        "Declare all routes and upstreams at once",
        {200: wire.Written},
        (422, 503, 507),
        (Parameter("prune", bool, "Withdraw everything if the body names no route and no upstream"), REASON),
        body=wire.IntentBody,
        max_body=MAX_INTENT_BODY,
        text="Those that are not in the body are withdrawn. All of it is applied, or nothing. A body that names "
        "nothing is refused, unless `prune` is true.",
    ),
    Route(
        "read_edits",
        "GET",
        f"{BASE}/intent/history",
        "What became of routes and upstreams, and why",
        {200: wire.EditList},
        (422, 503),
        (
            Parameter("document", DocumentKind, "Only of routes, or only of upstreams"),
            Parameter("name", wire.Id, "Only of the route of this name, and of the upstream of this service"),
            Parameter("limit", Limit, "How many at most; 100 unless told"),
        ),
    ),
    Route("read_status", "GET", f"{BASE}/status", "This node", {200: wire.NodeStatus}, early=True),
    Route("openapi", "GET", f"{BASE}/openapi.json", "This document", {200: "application/json"}, early=True),
    Route("docs", "GET", "/docs", "This document, for people", {200: "text/html; charset=utf-8"}, early=True),
    Route("metrics", "GET", "/metrics", "Metrics for Prometheus", {200: "text/plain"}, early=True),
    Route("healthz", "GET", "/healthz", "Whether the process lives", {200: "text/plain"}, early=True),
    Route(
        "readyz",
        "GET",
        "/readyz",
        "Whether the catalog is loaded and the node serves it",
        {200: "text/plain"},
        (503,),
        early=True,
    ),
    Route("home", "GET", "/", "Leads to the docs", {307: None}, early=True),
)
