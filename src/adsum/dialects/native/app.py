"""The native API as an ASGI application, with a fast path before it for brief requests."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from random import Random
from typing import Final, Protocol

from adsum import wire
from adsum.access.authority import AuthorityService
from adsum.access.control import AccessControl
from adsum.access.credentials import NO_CREDENTIALS, Credentials
from adsum.access.registry_addresses import RegistryAddresses
from adsum.core.access.actions import Action
from adsum.core.errors import AdsumError
from adsum.dialects.native.api.operation_table import OPERATIONS
from adsum.dialects.native.api.router import Router
from adsum.dialects.native.asgi import ApiReply, Receive, Scope, Send
from adsum.dialects.native.brief.acknowledgements import BriefAcknowledgements
from adsum.dialects.native.brief.brief_requests import BriefRequests
from adsum.dialects.native.brief.registrations import BriefRegistrations
from adsum.dialects.native.brief.renewals import BriefRenewals
from adsum.dialects.native.brief.service_reads import ServiceReads
from adsum.dialects.native.events.watch_events import WatchEvents
from adsum.dialects.native.operations.bulk_registration import BulkRegistration
from adsum.dialects.native.operations.intent import IntentOperations
from adsum.dialects.native.operations.join import JoinOperations
from adsum.dialects.native.operations.lease_renewals import LeaseRenewals
from adsum.dialects.native.operations.node import NodeOperations
from adsum.dialects.native.operations.overrides import OverrideOperations
from adsum.dialects.native.operations.reads import ReadOperations
from adsum.dialects.native.operations.tokens import TokenOperations
from adsum.dialects.native.operations.watch import WatchOperations
from adsum.dialects.native.operations.writes import WriteOperations
from adsum.dialects.native.pages.pages import Pages
from adsum.dialects.native.ports import AddressCheck, LatestOutcomes, LeaseRenewer, NoOtherNodes, OtherNodes
from adsum.dialects.native.problems import NotReady, problem_reply
from adsum.dialects.native.requests.api_request import ApiRequest, peer_address, request_credentials
from adsum.dialects.native.requests.body_memory import BodyMemory
from adsum.mounts import FastPath
from adsum.ports import CLIENT_CERTIFICATE, Clock, Observer
from adsum.registry import Registry

UNKNOWN_OPERATION: Final = "unknown"
"""The name of the operation, for metrics, of a request whose path is unknown."""

_log = logging.getLogger("adsum.native")


class ApiResponse(Protocol):
    """A response: an `ApiReply` or an endless `WatchStream`."""

    @property
    def status(self) -> int: ...

    async def respond(self, scope: Scope, receive: Receive, send: Send, /) -> None: ...


OperationMethod = Callable[[ApiRequest], Awaitable[ApiResponse]]
"""Serves the requests of one operation."""


class Native:
    """The native HTTP API of a registry, as an ASGI application."""

    def __init__(
        self,
        registry: Registry,
        keeper: LeaseRenewer,
        clock: Clock,
        observer: Observer,
        rng: Random,
        *,
        check_address: AddressCheck,
        latest_outcomes: LatestOutcomes,
        status: Callable[[], wire.NodeStatus],
        exposition: Callable[[], bytes],
        access: AccessControl,
        authority: AuthorityService | None = None,
        addresses: Callable[[], RegistryAddresses] = RegistryAddresses,
        peers: OtherNodes | None = None,
        node: str = "",
    ) -> None:
        """`authority`: that of the registry; None if it serves no TLS. `node`: the name of this node."""
        self._registry = registry
        self._clock = clock
        self._observer = observer
        self._pages = pages = Pages(registry)
        self._access = access
        self._router = Router(OPERATIONS)
        self._body_memory = BodyMemory()
        others = peers or NoOtherNodes()
        renewals = LeaseRenewals(registry, keeper, others)
        watches = WatchOperations(registry, WatchEvents(pages), rng)
        self.fast_path: FastPath = BriefRequests(
            ServiceReads(registry, pages),
            BriefRenewals(registry, keeper, others, renewals, access),
            BriefRegistrations(
                registry,
                renewals,
                access,
                observer,
                clock,
                check_address=check_address,
                body_memory=self._body_memory,
            ),
            BriefAcknowledgements(registry, access, watches.record_acknowledgement),
            access,
            observer,
            clock,
        )
        """Answers brief requests before they become tasks."""
        self._methods = _methods(
            ReadOperations(registry, pages, latest_outcomes),
            WriteOperations(registry, keeper, others, renewals, check_address, clock),
            BulkRegistration(registry, renewals, check_address, clock, observer),
            OverrideOperations(registry, others, clock, node),
            watches,
            IntentOperations(registry, clock),
            NodeOperations(registry, status, exposition),
            TokenOperations(registry, access, clock, authority, addresses),
            JoinOperations(registry, access, clock, authority, addresses, others),
        )

    @property
    def pages_bytes(self) -> int:
        """Bytes of memory that the pages of services take."""
        return self._pages.size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        began = self._clock.now()
        operation, response = await self._response(scope, receive)
        if isinstance(response, ApiReply):
            await response.respond(scope, receive, send)
            self._observer.answered(operation, response.status, self._clock.now() - began)
        else:  # An endless response is counted when it begins.
            self._observer.answered(operation, response.status, self._clock.now() - began)
            await response.respond(scope, receive, send)

    async def _response(self, scope: Scope, receive: Receive) -> tuple[str, ApiResponse]:
        """Returns the name of the operation and its response. Every error becomes a problem document."""
        name = UNKNOWN_OPERATION
        credentials = NO_CREDENTIALS
        try:
            operation, values = self._router.find(scope["method"], scope["raw_path"].decode("ascii"))
            name = operation.name
            if not (operation.needs_no_catalog or self._registry.is_ready):
                raise NotReady("the catalog is not loaded yet")
            if operation.is_public:
                credentials = Credentials(address=peer_address(scope))
                principal = self._access.anonymous
            else:
                certificate = scope.get("state", {}).get(CLIENT_CERTIFICATE, b"")
                credentials = request_credentials(scope["headers"], certificate, peer_address(scope))
                principal = self._access.identify(credentials)
            with closing(
                ApiRequest(operation, values, scope, receive, self._body_memory, principal, self._access)
            ) as request:
                action = Action.FORWARD if request.is_forwarded else operation.action
                self._access.require(principal, action, request.named_services)
                name = "long_poll" if request.query.get("wait") else name
                return name, await self._methods[operation.name](request)
        except AdsumError as error:
            self._observer.refused(name, error)
            self._access.record_refusal(name, error, credentials)
            await self._access.slow_down(error, credentials.address)
            return name, problem_reply(error)
        except Exception as error:
            _log.exception("%s failed", name)
            self._observer.refused(name, error)
            return name, problem_reply(error)


def _methods(
    reads: ReadOperations,
    writes: WriteOperations,
    bulk: BulkRegistration,
    overrides: OverrideOperations,
    watches: WatchOperations,
    intent: IntentOperations,
    node: NodeOperations,
    tokens: TokenOperations,
    joining: JoinOperations,
) -> Mapping[str, OperationMethod]:
    """Returns the method of each operation in `OPERATIONS`, by the name of the operation."""
    methods: dict[str, OperationMethod] = {
        "register": writes.register,
        "register_many": bulk.register_many,
        "read_instance": reads.read_instance,
        "deregister": writes.deregister,
        "renew": writes.renew,
        "renew_many": writes.renew_many,
        "override": overrides.override,
        "resume": overrides.resume,
        "list_services": reads.list_services,
        "read_service": reads.read_service,
        "forget": writes.forget,
        "read_unacknowledged": overrides.read_unacknowledged,
        "read_changes": reads.read_changes,
        "watch": watches.watch,
        "acknowledge": watches.acknowledge,
        "update_watch": watches.update_watch,
        "say_goodbye": watches.say_goodbye,
        "list_routes": intent.list_routes,
        "read_route": intent.read_route,
        "put_route": intent.put_route,
        "remove_route": intent.remove_route,
        "check_route": intent.check_route,
        "list_upstreams": intent.list_upstreams,
        "read_upstream": intent.read_upstream,
        "put_upstream": intent.put_upstream,
        "remove_upstream": intent.remove_upstream,
        "replace_intent": intent.replace_intent,
        "read_edits": intent.read_edits,
        "read_status": node.read_status,
        "openapi": node.openapi,
        "docs": node.docs,
        "metrics": node.metrics,
        "healthz": node.healthz,
        "readyz": node.readyz,
        "home": node.home,
        "list_tokens": tokens.list_tokens,
        "create_token": tokens.create_token,
        "read_token": tokens.read_token,
        "rotate_token": tokens.rotate_token,
        "revoke_token": tokens.revoke_token,
        "list_invites": tokens.list_invites,
        "create_invite": tokens.create_invite,
        "revoke_invite": tokens.revoke_invite,
        "join": joining.join,
        "certify": joining.certify,
        "read_authority": joining.read_authority,
        "read_caller": joining.read_caller,
    }
    if differing := methods.keys() ^ {operation.name for operation in OPERATIONS}:
        raise LookupError(f"operations that are not both in OPERATIONS and here: {', '.join(sorted(differing))}")
    return methods
