"""Routes and upstreams: what operators want of gateways, kept beside the catalog."""

from __future__ import annotations

from collections.abc import Callable

from adsum import wire
from adsum.core import declarations
from adsum.core.decisions import Caller
from adsum.core.declarations import Declaration
from adsum.core.documents import Document, DocumentKind, Documents, Title
from adsum.core.errors import UnknownDocument
from adsum.dialects.native.asgi import Reply
from adsum.dialects.native.asked import Asked
from adsum.gateway.matching import explain
from adsum.ports import Clock
from adsum.registry import Registry

_ROUTE, _UPSTREAM = DocumentKind.ROUTE, DocumentKind.UPSTREAM


class Declaring:
    """The operations about routes and upstreams. What is refused changes nothing."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._intents = wire.Intents()

    async def list_routes(self, _: Asked) -> Reply:
        snapshot = self._registry.snapshot
        return Reply(200, wire.encode(wire.RouteList.of(snapshot.epoch, snapshot.revision, snapshot.documents)))

    async def replace_intent(self, asked: Asked) -> Reply:
        bodies = (await asked.body(wire.IntentBody)).to_bodies()
        return await self._write(
            declarations.replaced((_ROUTE, _UPSTREAM), bodies, self._caller(asked), self._fits("routes"))
        )

    async def read_route(self, asked: Asked) -> Reply:
        return Reply(200, wire.encode(wire.RouteView.of(self._document(_ROUTE, asked.path["route"]))))

    async def put_route(self, asked: Asked) -> Reply:
        name = asked.path["route"]
        says = wire.written_route(name, await asked.body(wire.RouteBody))
        return await self._write(
            declarations.declared(Title(_ROUTE, name), says, self._caller(asked), self._fits("to"))
        )

    async def remove_route(self, asked: Asked) -> Reply:
        return await self._withdraw(asked, Title(_ROUTE, asked.path["route"]))

    async def check_route(self, asked: Asked) -> Reply:
        body = await asked.body(wire.CheckRouteBody)
        intent, services = self._intents.of(self._registry.snapshot.documents), self._registry.snapshot.services
        verdict = explain(intent, services, body.to_request(), default_routes=body.default_routes)
        return Reply(200, wire.encode(wire.VerdictView.of(verdict)))

    async def list_upstreams(self, _: Asked) -> Reply:
        snapshot = self._registry.snapshot
        return Reply(200, wire.encode(wire.UpstreamList.of(snapshot.epoch, snapshot.revision, snapshot.documents)))

    async def read_upstream(self, asked: Asked) -> Reply:
        return Reply(200, wire.encode(wire.UpstreamView.of(self._document(_UPSTREAM, asked.path["service"]))))

    async def put_upstream(self, asked: Asked) -> Reply:
        service = asked.path["service"]
        says = wire.written_upstream(service, await asked.body(wire.UpstreamBody))
        return await self._write(declarations.declared(Title(_UPSTREAM, service), says, self._caller(asked)))

    async def remove_upstream(self, asked: Asked) -> Reply:
        return await self._withdraw(asked, Title(_UPSTREAM, asked.path["service"]))

    def _document(self, kind: DocumentKind, name: str) -> Document:
        document = self._registry.snapshot.documents.of.get(Title(kind, name))
        if document is None:
            raise UnknownDocument(kind.value, name)
        return document

    def _fits(self, field: str) -> Callable[[Documents], None]:
        """Judges whether gateways can be told all documents; what can't be is blamed on the field."""
        return lambda documents: self._intents.of(documents).must_fit(field)

    async def _withdraw(self, asked: Asked, title: Title) -> Reply:
        return await self._write(declarations.withdrawn(title, asked.query.get("reason", ""), self._caller(asked)))

    async def _write(self, declaration: Declaration) -> Reply:
        revision = await self._registry.write(declaration)
        return Reply(200, wire.encode(wire.Written(self._registry.snapshot.epoch, revision)))

    def _caller(self, asked: Asked) -> Caller:
        return Caller(asked.actor, self._clock.wall())
