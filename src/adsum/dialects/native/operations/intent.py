"""Routes and upstreams: what operators want of gateways, kept beside the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.core.catalog import declarations
from adsum.core.catalog.declarations import Declaration, Replacement
from adsum.core.catalog.documents import Document, DocumentKind, Documents, Title
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import Invalid, UnknownDocument
from adsum.dialects.native.asgi import Reply
from adsum.dialects.native.requests.api_request import Asked, decoding, must_give_once
from adsum.dialects.native.worker import Apart
from adsum.gateway.route_check.availability import presence
from adsum.gateway.route_check.route_check import explain
from adsum.ports import Clock
from adsum.registry import Registry

EXPLAIN_TIME: Final = 4.0
"""Seconds to find out which route takes a request; a question that takes longer is refused."""
HISTORY: Final = 100
"""How many recorded edits are answered unless told otherwise."""
_ROUTE, _UPSTREAM = DocumentKind.ROUTE, DocumentKind.UPSTREAM


class Declaring:
    """The operations about routes and upstreams. What is refused changes nothing."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._intents = wire.Intents()
        """Read in the thread of `_questions` alone."""
        self._wanted = wire.Intents()
        """Read in the loop's thread alone."""
        self._questions = Apart()
        self._lists = Apart()

    async def list_routes(self, _: Asked) -> Reply:
        return await self._listed(wire.RouteList.written)

    async def replace_intent(self, asked: Asked) -> Reply:
        body, prune, caller = await asked.json(), asked.query.get("prune", False), asked.caller(self._clock.wall())
        reason = asked.query.get("reason", "")
        documents = self._registry.snapshot.documents

        def read(before_each: Callable[[], None]) -> Replacement:
            with decoding():
                bodies = wire.IntentBody.read(body, before_each)
            must_give_once(body)
            for title, said in bodies.items():
                before_each()
                # Their meaning is found out here, too, so that it is known when they are in force.
                wire.meaning(title, said)
            replacement = Replacement(
                (_ROUTE, _UPSTREAM), bodies, caller, self._fits("routes"), prune=prune, reason=reason
            )
            replacement.prepare(documents, lambda after: wire.Intents().of(after).must_fit("routes"))
            return replacement

        return await self._write(await self._lists.run(read))

    async def read_edits(self, asked: Asked) -> Reply:
        query = asked.query
        recorded = await self._registry.edits(query.get("document"), query.get("name"), query.get("limit", HISTORY))
        snapshot = self._registry.snapshot
        edits = [wire.EditView.of(each) for each in recorded]
        return Reply(200, wire.encode(wire.EditList(snapshot.epoch, snapshot.revision, edits)))

    async def read_route(self, asked: Asked) -> Reply:
        document = self._document(_ROUTE, asked.path["route"])
        return await self._listed(lambda snapshot, _: wire.encode(wire.RouteView.of(document, snapshot)))

    async def put_route(self, asked: Asked) -> Reply:
        name = asked.path["route"]
        says = wire.written_route(name, await asked.body(wire.RouteBody))
        return await self._write(
            declarations.declared(
                Title(_ROUTE, name),
                says,
                asked.caller(self._clock.wall()),
                self._fits("to"),
                reason=asked.query.get("reason", ""),
            )
        )

    async def remove_route(self, asked: Asked) -> Reply:
        return await self._withdraw(asked, Title(_ROUTE, asked.path["route"]))

    async def check_route(self, asked: Asked) -> Reply:
        body = await asked.body(wire.CheckRouteBody)
        snapshot = self._registry.snapshot
        request = body.to_request()

        def answer(before_each: Callable[[], None]) -> bytes:
            until = self._clock.now() + EXPLAIN_TIME

            def in_time() -> None:
                before_each()
                if self._clock.now() > until:
                    raise Invalid("url", f"takes over {EXPLAIN_TIME:g} s to compare with all routes: make it shorter")

            verdict = explain(
                self._intents.of(snapshot.documents),
                snapshot.services,
                request,
                lambda to: presence(to, snapshot),
                default_routes=body.default_routes,
                before_each=in_time,
            )
            return wire.encode(wire.VerdictView.of(verdict))

        return Reply(200, await self._questions.run(answer))

    async def list_upstreams(self, _: Asked) -> Reply:
        return await self._listed(wire.UpstreamList.written)

    async def read_upstream(self, asked: Asked) -> Reply:
        return Reply(200, wire.encode(wire.UpstreamView.of(self._document(_UPSTREAM, asked.path["service"]))))

    async def put_upstream(self, asked: Asked) -> Reply:
        service = asked.path["service"]
        says = wire.written_upstream(service, await asked.body(wire.UpstreamBody))
        caller, reason = asked.caller(self._clock.wall()), asked.query.get("reason", "")
        return await self._write(declarations.declared(Title(_UPSTREAM, service), says, caller, reason=reason))

    async def remove_upstream(self, asked: Asked) -> Reply:
        return await self._withdraw(asked, Title(_UPSTREAM, asked.path["service"]))

    async def _listed(self, written: Callable[[Snapshot, Callable[[], None]], bytes]) -> Reply:
        snapshot = self._registry.snapshot
        return Reply(200, await self._lists.run(lambda before_each: written(snapshot, before_each)))

    def _document(self, kind: DocumentKind, name: str) -> Document:
        document = self._registry.snapshot.documents.of.get(Title(kind, name))
        if document is None:
            raise UnknownDocument(kind.value, name)
        return document

    def _fits(self, field: str) -> Callable[[Documents], None]:
        """Judges whether gateways can be told all documents; what can't be is blamed on the field."""
        return lambda documents: self._wanted.of(documents).must_fit(field)

    async def _withdraw(self, asked: Asked, title: Title) -> Reply:
        return await self._write(
            declarations.withdrawn(title, asked.query.get("reason", ""), asked.caller(self._clock.wall()))
        )

    async def _write(self, declaration: Declaration) -> Reply:
        revision = await self._registry.write(declaration)
        return Reply(200, wire.encode(wire.Written(self._registry.snapshot.epoch, revision)))
