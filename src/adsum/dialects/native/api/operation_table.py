"""The table of operations. The router, the OpenAPI document and the docs page are derived from it."""

from __future__ import annotations

from typing import Final

from adsum import wire
from adsum.core.access.actions import Action
from adsum.dialects.native.api.intent_operations import INTENT_OPERATIONS
from adsum.dialects.native.api.operation import BASE, EVENT_STREAM, ApiOperation, QueryParameter
from adsum.dialects.native.api.parameters import (
    FILTER_PARAMETERS,
    HOLDER_PARAMETER,
    LONG_POLL_PARAMETERS,
    REASON_PARAMETER,
    Count,
    Limit,
)
from adsum.dialects.native.api.token_operations import TOKEN_OPERATIONS

MAX_REGISTER_BODY_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a body that registers many instances. A larger one is refused with 413."""
MAX_RENEW_BODY_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a body that renews many leases. A larger one is refused with 413."""

_SERVICES = f"{BASE}/services"
_SERVICE = f"{_SERVICES}/{{service}}"
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
        "register_many",
        "POST",
        f"{BASE}/register",
        Action.REGISTER,
        "Register many instances",
        {200: wire.RegistrationResult},
        (422, 503),
        body=wire.RegisterBody,
        max_body=MAX_REGISTER_BODY_BYTES,
        description="Each registration is answered as if it had been sent by itself, in the order of the request: an "
        "invalid or refused one does not affect the others. If a live process has the id at another address and port, "
        "the registration is refused with 409 and no probe is sent: register it by itself. The response is 503 if no "
        "instance is registered because the store can't be written, or because the node has too much to do.",
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
        is_forwardable=True,
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
                "since", wire.PositionText, "EPOCH:REVISION to resume from. The header Last-Event-ID has precedence"
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
        "`synced` ends each group. Services may join and leave the watch meanwhile (`update_watch`); a `joined` event "
        "comes before the state of one that joins.",
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
        "update_watch",
        "POST",
        f"{BASE}/watches/{{watch}}/services",
        Action.WATCH,
        "Let services join and leave a watch while it lives",
        {204: None},
        (404, 422, 503),
        body=wire.WatchServicesBody,
        description="For a watch of named services whose event `open` has `joins`. Send it to the node that serves the"
        " watch, one request after the other. The stream then sends a `joined` event for each service that joins, and"
        " its state: in full, or the changes since the position that the request names. Other services are not sent"
        " again. A service that joins again is sent anew. After a response 404 open another watch: this one has ended,"
        " or another node serves it.",
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
    *INTENT_OPERATIONS,
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
