"""Routes and upstreams: the intent of operators for gateways, stored beside the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import Right
from adsum.core.catalog import declarations
from adsum.core.catalog.declarations import Declaration, DocumentReplacement
from adsum.core.catalog.documents import (
    ACCESS_KINDS,
    INTENT_KINDS,
    Document,
    DocumentKey,
    DocumentKind,
    Documents,
    Edit,
)
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import Forbidden, Invalid, Unauthenticated, UnknownDocument
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.requests.api_request import ApiRequest, json_errors, require_unique_keys
from adsum.dialects.native.worker import WorkerThread
from adsum.gateway.intent.named_services import named_services, visible_intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.upstreams import Upstream
from adsum.gateway.route_check.availability import availability
from adsum.gateway.route_check.route_check import check_route
from adsum.ports import Clock
from adsum.registry import Registry

ROUTE_CHECK_TIMEOUT: Final = 4.0
"""Seconds for the check of a route. A check that takes longer is refused."""
DEFAULT_EDITS_LIMIT: Final = 100
"""Recorded edits in a response, by default."""
_BOTH_ENDS: Final = (
    "it needs the right operate over every service that the route or upstream names, before and after, and over the "
    "first label of each host; a route for every host needs operate:*"
)
_ROUTE, _UPSTREAM = DocumentKind.ROUTE, DocumentKind.UPSTREAM


class IntentOperations:
    """The operations about routes and upstreams. A refused request changes nothing."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._check_intents = wire.IntentCache()
        """Used in the thread of `_check_worker` only."""
        self._write_intents = wire.IntentCache()
        """Used in the thread of the event loop only."""
        self._check_worker = WorkerThread()
        self._list_worker = WorkerThread()

    async def list_routes(self, request: ApiRequest) -> ApiReply:
        visible = request.principal.scopes.visible
        return await self._reply_in_worker(
            lambda snapshot, checkpoint: wire.RouteList.encode_all(snapshot, visible, checkpoint)
        )

    async def replace_intent(self, request: ApiRequest) -> ApiReply:
        body, prune = await request.json_body(), request.query.get("prune", False)
        caller, reason = request.caller(self._clock.wall()), request.query.get("reason", "")
        documents = self._registry.snapshot.documents

        def read(checkpoint: Callable[[], None]) -> DocumentReplacement:
            with json_errors():
                bodies = wire.IntentBody.decode(body, checkpoint)
            require_unique_keys(body)
            for key, document in bodies.items():
                checkpoint()
                wire.parse_document(key, document)  # The result is cached for the time when the document is in force.
            replacement = DocumentReplacement(
                (_ROUTE, _UPSTREAM), bodies, caller, self._size_check("routes"), prune=prune, reason=reason
            )
            replacement.prepare(documents, lambda after: wire.IntentCache().get(after).check_size("routes"))
            return replacement

        return await self._write(await self._list_worker.run(read))

    async def read_edits(self, request: ApiRequest) -> ApiReply:
        query = request.query
        kinds = (query["document"],) if "document" in query else INTENT_KINDS
        if any(kind in ACCESS_KINDS for kind in kinds):
            request.require(Action.MANAGE_TOKENS)
        recorded = await self._registry.edits(kinds, query.get("name"), query.get("limit", DEFAULT_EDITS_LIMIT))
        snapshot = self._registry.snapshot
        edits = [wire.EditView.from_recorded(edit) for edit in recorded]
        return ApiReply(200, wire.encode(wire.EditList(snapshot.epoch, snapshot.revision, edits)))

    async def read_route(self, request: ApiRequest) -> ApiReply:
        document = self._document(request, DocumentKey(_ROUTE, request.path["route"]))
        return await self._reply_in_worker(
            lambda snapshot, _: wire.encode(wire.RouteView.from_document(document, snapshot))
        )

    async def put_route(self, request: ApiRequest) -> ApiReply:
        name = request.path["route"]
        document = wire.encode_route(name, await request.body(wire.RouteBody))
        return await self._declare(request, DocumentKey(_ROUTE, name), document, self._size_check("to"))

    async def remove_route(self, request: ApiRequest) -> ApiReply:
        return await self._withdraw(request, DocumentKey(_ROUTE, request.path["route"]))

    async def check_route(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.CheckRouteBody)
        snapshot = self._registry.snapshot
        checked = body.to_request()
        visible = request.principal.scopes.visible

        def check(checkpoint: Callable[[], None]) -> bytes:
            deadline = self._clock.now() + ROUTE_CHECK_TIMEOUT

            def before_route() -> None:
                checkpoint()
                if self._clock.now() > deadline:
                    raise Invalid(
                        "url", f"takes over {ROUTE_CHECK_TIMEOUT:g} s to compare with all routes: make it shorter"
                    )

            services = snapshot.services
            if not visible.is_all:
                services = {name: service for name, service in services.items() if visible.includes(name)}
            verdict = check_route(
                visible_intent(self._check_intents.get(snapshot.documents), visible),
                services,
                checked,
                lambda selector: availability(selector, snapshot),
                default_routes=body.default_routes,
                before_route=before_route,
            )
            return wire.encode(wire.VerdictView.from_verdict(verdict))

        return ApiReply(200, await self._check_worker.run(check))

    async def list_upstreams(self, request: ApiRequest) -> ApiReply:
        visible = request.principal.scopes.visible
        return await self._reply_in_worker(
            lambda snapshot, checkpoint: wire.UpstreamList.encode_all(snapshot, visible, checkpoint)
        )

    async def read_upstream(self, request: ApiRequest) -> ApiReply:
        document = self._document(request, DocumentKey(_UPSTREAM, request.path["service"]))
        return ApiReply(200, wire.encode(wire.UpstreamView.from_document(document)))

    async def put_upstream(self, request: ApiRequest) -> ApiReply:
        service = request.path["service"]
        document = wire.encode_upstream(service, await request.body(wire.UpstreamBody))
        return await self._declare(request, DocumentKey(_UPSTREAM, service), document, declarations.accept_all)

    async def remove_upstream(self, request: ApiRequest) -> ApiReply:
        return await self._withdraw(request, DocumentKey(_UPSTREAM, request.path["service"]))

    async def _reply_in_worker(self, encode: Callable[[Snapshot, Callable[[], None]], bytes]) -> ApiReply:
        snapshot = self._registry.snapshot
        return ApiReply(200, await self._list_worker.run(lambda checkpoint: encode(snapshot, checkpoint)))

    def _document(self, request: ApiRequest, key: DocumentKey) -> Document:
        document = self._registry.snapshot.documents.find(key)
        if document is None or not wire.is_visible(document, request.principal.scopes.visible):
            raise UnknownDocument(key.kind.value, key.name)
        return document

    def _size_check(self, field: str) -> Callable[[Documents], None]:
        """Returns a check whether gateways can take all documents together. It raises `Invalid` with the field."""
        return lambda documents: self._write_intents.get(documents).check_size(field)

    async def _declare(
        self, request: ApiRequest, key: DocumentKey, document: bytes, validate: declarations.ValidateDocuments
    ) -> ApiReply:
        caller, reason = request.caller(self._clock.wall()), request.query.get("reason", "")
        _require_intent(request.principal, wire.parse_document(key, document))
        declaration = declarations.declare(key, document, caller, validate, reason=reason)
        return await self._write(_guarded(declaration, request.principal, key))

    async def _withdraw(self, request: ApiRequest, key: DocumentKey) -> ApiReply:
        """Withdraws a document. One that the caller may not see does not exist for the caller, and stays."""
        caller, reason = request.caller(self._clock.wall()), request.query.get("reason", "")
        principal = request.principal
        withdrawal = _guarded(declarations.withdraw(key, reason, caller), principal, key)

        def decide(view: CatalogView) -> list[Edit]:
            document = view.documents.find(key)
            is_hidden = document is not None and not wire.is_visible(document, principal.scopes.visible)
            return [] if is_hidden else withdrawal(view)

        return await self._write(decide)

    async def _write(self, declaration: Declaration) -> ApiReply:
        revision = await self._registry.write(declaration)
        return ApiReply(200, wire.encode(wire.WriteResult(self._registry.snapshot.epoch, revision)))


def _guarded(declaration: Declaration, principal: Principal, key: DocumentKey) -> Declaration:
    """Returns the declaration, decided only if the principal may also declare what the document says now."""

    def decide(view: CatalogView) -> list[Edit]:
        before = view.documents.find(key)
        if before is not None:
            _require_intent(principal, wire.parse_document(key, before.body))
        return declaration(view)

    return decide


def _require_intent(principal: Principal, declared: Route | Upstream | str) -> None:
    """Returns if the principal may declare it. Raises `Forbidden`, and `Unauthenticated` for a caller without a proof.

    A document that can't be read may name any service.
    """
    if isinstance(declared, str):
        allowed = principal.scopes.can_everywhere(Right.OPERATE)
    else:
        allowed = named_services(declared).may_declare(principal.scopes)
    if allowed:
        return
    if not principal.is_proven:
        raise Unauthenticated(f"this needs a token: {_BOTH_ENDS}", reason="no-credentials")
    raise Forbidden(f"{principal.name} may not declare or withdraw this: {_BOTH_ENDS}")
