"""Routes and upstreams: what operators want of gateways, kept beside the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.core.catalog import declarations
from adsum.core.catalog.declarations import Declaration, DocumentReplacement
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, Documents
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import Invalid, UnknownDocument
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.requests.api_request import ApiRequest, json_errors, require_unique_keys
from adsum.dialects.native.worker import WorkerThread
from adsum.gateway.route_check.availability import availability
from adsum.gateway.route_check.route_check import check_route
from adsum.ports import Clock
from adsum.registry import Registry

EXPLAIN_TIMEOUT: Final = 4.0
"""Seconds to find out which route takes a request; a question that takes longer is refused."""
DEFAULT_EDITS_LIMIT: Final = 100
"""How many recorded edits are answered unless told otherwise."""
_ROUTE, _UPSTREAM = DocumentKind.ROUTE, DocumentKind.UPSTREAM


class IntentOperations:
    """The operations about routes and upstreams. What is refused changes nothing."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._intents = wire.IntentCache()
        """Read in the thread of `_questions` alone."""
        self._wanted = wire.IntentCache()
        """Read in the loop's thread alone."""
        self._questions = WorkerThread()
        self._lists = WorkerThread()

    async def list_routes(self, _: ApiRequest) -> ApiReply:
        return await self._listed(wire.RouteList.encode_all)

    async def replace_intent(self, asked: ApiRequest) -> ApiReply:
        body, prune, caller = await asked.json_body(), asked.query.get("prune", False), asked.caller(self._clock.wall())
        reason = asked.query.get("reason", "")
        documents = self._registry.snapshot.documents

        def read(before_each: Callable[[], None]) -> DocumentReplacement:
            with json_errors():
                bodies = wire.IntentBody.decode(body, before_each)
            require_unique_keys(body)
            for title, said in bodies.items():
                before_each()
                # Their meaning is found out here, too, so that it is known when they are in force.
                wire.parse_document(title, said)
            replacement = DocumentReplacement(
                (_ROUTE, _UPSTREAM), bodies, caller, self._fits("routes"), prune=prune, reason=reason
            )
            replacement.prepare(documents, lambda after: wire.IntentCache().get(after).check_size("routes"))
            return replacement

        return await self._write(await self._lists.run(read))

    async def read_edits(self, asked: ApiRequest) -> ApiReply:
        query = asked.query
        recorded = await self._registry.edits(
            query.get("document"), query.get("name"), query.get("limit", DEFAULT_EDITS_LIMIT)
        )
        snapshot = self._registry.snapshot
        edits = [wire.EditView.from_recorded(each) for each in recorded]
        return ApiReply(200, wire.encode(wire.EditList(snapshot.epoch, snapshot.revision, edits)))

    async def read_route(self, asked: ApiRequest) -> ApiReply:
        document = self._document(_ROUTE, asked.path["route"])
        return await self._listed(lambda snapshot, _: wire.encode(wire.RouteView.from_document(document, snapshot)))

    async def put_route(self, asked: ApiRequest) -> ApiReply:
        name = asked.path["route"]
        says = wire.encode_route(name, await asked.body(wire.RouteBody))
        return await self._write(
            declarations.declare(
                DocumentKey(_ROUTE, name),
                says,
                asked.caller(self._clock.wall()),
                self._fits("to"),
                reason=asked.query.get("reason", ""),
            )
        )

    async def remove_route(self, asked: ApiRequest) -> ApiReply:
        return await self._withdraw(asked, DocumentKey(_ROUTE, asked.path["route"]))

    async def check_route(self, asked: ApiRequest) -> ApiReply:
        body = await asked.body(wire.CheckRouteBody)
        snapshot = self._registry.snapshot
        request = body.to_request()

        def answer(before_each: Callable[[], None]) -> bytes:
            until = self._clock.now() + EXPLAIN_TIMEOUT

            def in_time() -> None:
                before_each()
                if self._clock.now() > until:
                    raise Invalid(
                        "url", f"takes over {EXPLAIN_TIMEOUT:g} s to compare with all routes: make it shorter"
                    )

            verdict = check_route(
                self._intents.get(snapshot.documents),
                snapshot.services,
                request,
                lambda to: availability(to, snapshot),
                default_routes=body.default_routes,
                before_route=in_time,
            )
            return wire.encode(wire.VerdictView.from_verdict(verdict))

        return ApiReply(200, await self._questions.run(answer))

    async def list_upstreams(self, _: ApiRequest) -> ApiReply:
        return await self._listed(wire.UpstreamList.encode_all)

    async def read_upstream(self, asked: ApiRequest) -> ApiReply:
        return ApiReply(
            200, wire.encode(wire.UpstreamView.from_document(self._document(_UPSTREAM, asked.path["service"])))
        )

    async def put_upstream(self, asked: ApiRequest) -> ApiReply:
        service = asked.path["service"]
        says = wire.encode_upstream(service, await asked.body(wire.UpstreamBody))
        caller, reason = asked.caller(self._clock.wall()), asked.query.get("reason", "")
        return await self._write(declarations.declare(DocumentKey(_UPSTREAM, service), says, caller, reason=reason))

    async def remove_upstream(self, asked: ApiRequest) -> ApiReply:
        return await self._withdraw(asked, DocumentKey(_UPSTREAM, asked.path["service"]))

    async def _listed(self, written: Callable[[Snapshot, Callable[[], None]], bytes]) -> ApiReply:
        snapshot = self._registry.snapshot
        return ApiReply(200, await self._lists.run(lambda before_each: written(snapshot, before_each)))

    def _document(self, kind: DocumentKind, name: str) -> Document:
        document = self._registry.snapshot.documents.by_key.get(DocumentKey(kind, name))
        if document is None:
            raise UnknownDocument(kind.value, name)
        return document

    def _fits(self, field: str) -> Callable[[Documents], None]:
        """Judges whether gateways can be told all documents; what can't be is blamed on the field."""
        return lambda documents: self._wanted.get(documents).check_size(field)

    async def _withdraw(self, asked: ApiRequest, title: DocumentKey) -> ApiReply:
        return await self._write(
            declarations.withdraw(title, asked.query.get("reason", ""), asked.caller(self._clock.wall()))
        )

    async def _write(self, declaration: Declaration) -> ApiReply:
        revision = await self._registry.write(declaration)
        return ApiReply(200, wire.encode(wire.WriteResult(self._registry.snapshot.epoch, revision)))
