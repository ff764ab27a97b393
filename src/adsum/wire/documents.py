"""Routes and upstreams as the registry keeps them: documents with their author, and the intent they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta, Raw

from adsum.core.catalog.documents import (
    MAX_DOCUMENTS,
    Document,
    DocumentKey,
    DocumentKind,
    Documents,
    EditKind,
    RecordedEdit,
)
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError, Invalid
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.upstreams import Upstream
from adsum.gateway.route_check.availability import Availability, availability
from adsum.wire.codec import decode, encode
from adsum.wire.durations import convert_field
from adsum.wire.requests import RequestBody
from adsum.wire.responses import ResponseBody
from adsum.wire.routes import RouteBody
from adsum.wire.upstreams import UpstreamBody

_Piece = TypeVar("_Piece", RouteBody, UpstreamBody)

MAX_PARSED_DOCUMENTS: Final = 2 * MAX_DOCUMENTS
"""Documents whose meaning is remembered; past it, the one that was asked for longest ago is read anew."""


class IntentBody(RequestBody, frozen=True):
    """From now on these are all the routes and all the upstreams; each has its name in it."""

    routes: Annotated[list[RouteBody], Meta(max_length=MAX_DOCUMENTS)] = []
    upstreams: Annotated[list[UpstreamBody], Meta(max_length=MAX_DOCUMENTS)] = []

    def to_documents(self) -> dict[DocumentKey, bytes]:
        """What the documents say. Raises `Invalid`."""
        return _bodies(self.routes, self.upstreams)

    @staticmethod
    def decode(body: bytes, checkpoint: Callable[[], None]) -> dict[DocumentKey, bytes]:
        """What the documents of a body say. Raises `Invalid`.

        It is decoded piece by piece, and `before_each` is called before each of them: at once, it would keep Python's
        lock for as long as it takes.
        """
        pieces = decode(body, _Pieces)

        def read(field: str, n: int, piece: Raw, kind: type[_Piece]) -> _Piece:
            checkpoint()
            return convert_field(f"{field}[{n}]", partial(decode, bytes(piece), kind))

        routes = (read("routes", n, piece, RouteBody) for n, piece in enumerate(pieces.routes))
        return _bodies(routes, (read("upstreams", n, piece, UpstreamBody) for n, piece in enumerate(pieces.upstreams)))


def _bodies(routes: Iterable[RouteBody], upstreams: Iterable[UpstreamBody]) -> dict[DocumentKey, bytes]:
    bodies: dict[DocumentKey, bytes] = {}
    for n, route in enumerate(routes):
        body = convert_field(f"routes[{n}]", partial(encode_route, route.name, route))
        _add(bodies, DocumentKey(DocumentKind.ROUTE, route.name), body, f"routes[{n}].name")
    for n, upstream in enumerate(upstreams):
        body = convert_field(f"upstreams[{n}]", partial(encode_upstream, upstream.service, upstream))
        _add(bodies, DocumentKey(DocumentKind.UPSTREAM, upstream.service), body, f"upstreams[{n}].service")
    return bodies


class _Pieces(RequestBody, frozen=True):
    """An `IntentBody` whose routes and upstreams are not decoded yet."""

    routes: Annotated[list[Raw], Meta(max_length=MAX_DOCUMENTS)] = []
    upstreams: Annotated[list[Raw], Meta(max_length=MAX_DOCUMENTS)] = []


def _add(bodies: dict[DocumentKey, bytes], title: DocumentKey, body: bytes, field: str) -> None:
    if title in bodies:
        raise Invalid(field, f"there is another {title} in the list")
    bodies[title] = body


class EmptyTarget(ResponseBody, frozen=True):
    """A target of a route that nobody takes requests for: a service, or `SERVICE?tag=…&KEY=VALUE`.

    `availability` is `empty` (none of its instances takes requests now) or `unknown` (no such service is known).
    """

    to: str
    availability: Availability


class RouteView(ResponseBody, frozen=True):
    """A route, who declared it so, when on the wall clock, and those of its targets that are empty now.

    `peer` is the address from which somebody said to be the actor, "" if nobody did.
    """

    route: RouteBody
    actor: str
    at: float
    empty_targets: list[EmptyTarget] = []
    peer: str = ""

    @staticmethod
    def from_document(document: Document, snapshot: Snapshot) -> RouteView:
        why, route = document.provenance, parse_document(document.key, document.body)
        targets = [each.selector for each in route.to if each.weight] if isinstance(route, Route) else []
        empty = [EmptyTarget(to.name, availability(to, snapshot)) for to in targets]
        return RouteView(
            decode(document.body, RouteBody),
            why.actor,
            round(why.at, 3),
            [each for each in empty if each.availability is not Availability.AVAILABLE],
            why.peer,
        )


class RouteList(ResponseBody, frozen=True):
    """Every route, by name."""

    epoch: str
    revision: int
    routes: list[RouteView]

    @staticmethod
    def encode_all(snapshot: Snapshot, checkpoint: Callable[[], None]) -> bytes:
        """All of them as JSON, encoded one by one; `before_each` is called before each."""
        routes = (RouteView.from_document(each, snapshot) for each in snapshot.documents.of_kind(DocumentKind.ROUTE))
        return _listed(RouteList(snapshot.epoch, snapshot.revision, []), routes, checkpoint)


class UpstreamView(ResponseBody, frozen=True):
    """How gateways treat a service, and who declared it so, when on the wall clock.

    `peer` is the address from which somebody said to be the actor, "" if nobody did.
    """

    upstream: UpstreamBody
    actor: str
    at: float
    peer: str = ""

    @staticmethod
    def from_document(document: Document) -> UpstreamView:
        why = document.provenance
        return UpstreamView(decode(document.body, UpstreamBody), why.actor, round(why.at, 3), why.peer)


class UpstreamList(ResponseBody, frozen=True):
    """Every service that is not treated by the defaults, by name."""

    epoch: str
    revision: int
    upstreams: list[UpstreamView]

    @staticmethod
    def encode_all(snapshot: Snapshot, checkpoint: Callable[[], None]) -> bytes:
        """All of them as JSON, encoded one by one; `before_each` is called before each."""
        upstreams = map(UpstreamView.from_document, snapshot.documents.of_kind(DocumentKind.UPSTREAM))
        return _listed(UpstreamList(snapshot.epoch, snapshot.revision, []), upstreams, checkpoint)


def _listed(blank: ResponseBody, views: Iterable[ResponseBody], before_each: Callable[[], None]) -> bytes:
    """The answer whose last field is an empty list, with those in it."""
    pieces = []
    for view in views:
        before_each()
        pieces.append(encode(view))
    return b"".join((encode(blank).removesuffix(b"]}"), b",".join(pieces), b"]}"))


class EditView(ResponseBody, frozen=True):
    """What became of a route or an upstream, who did it, why, and when on the wall clock.

    `before` and `after` have the fields that changed. `omitted` names those that were too long for the record.
    """

    revision: int
    document: DocumentKind
    name: str
    edit: EditKind
    actor: str
    at: float
    reason: str = ""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    omitted: list[str] = []

    @staticmethod
    def from_recorded(recorded: RecordedEdit) -> EditView:
        title, why = recorded.key, recorded.provenance
        before, after = (
            {name: Raw(value) for name, value in part.items()} for part in (recorded.before, recorded.after)
        )
        return EditView(
            recorded.revision,
            title.kind,
            title.name,
            recorded.kind,
            why.actor,
            round(why.at, 3),
            why.reason,
            before,
            after,
            [*recorded.omitted],
        )


class EditList(ResponseBody, frozen=True):
    """Recorded edits, newest first."""

    epoch: str
    revision: int
    edits: list[EditView]


def encode_route(name: str, body: RouteBody) -> bytes:
    """The route as a document says it. Raises `Invalid`."""
    return encode(RouteBody.from_route(body.to_route(name)))


def encode_upstream(service: str, body: UpstreamBody) -> bytes:
    """The upstream as a document says it. Raises `Invalid`."""
    return encode(UpstreamBody.from_upstream(body.to_upstream(service)))


@lru_cache(maxsize=MAX_PARSED_DOCUMENTS)
def parse_document(title: DocumentKey, body: bytes) -> Route | Upstream | str:
    """What a document says; a text tells why it can't be read."""
    try:
        if title.kind is DocumentKind.ROUTE:
            return decode(body, RouteBody).to_route(title.name)
        return decode(body, UpstreamBody).to_upstream(title.name)
    except AdsumError as error:
        return str(error)


class IntentCache:
    """What all documents together want of gateways. A document is read once, however often others change."""

    def __init__(self) -> None:
        self._latest: tuple[Documents | None, Intent] = (None, NO_INTENT)
        self.unreadable: dict[str, str] = {}
        """Documents that a later version wrote, and what is strange about them: they are left out."""

    def get(self, documents: Documents) -> Intent:
        known, intent = self._latest
        if known is not documents:
            routes: list[Route] = []
            upstreams: dict[str, Upstream] = {}
            self.unreadable = {}
            for document in (*documents.of_kind(DocumentKind.ROUTE), *documents.of_kind(DocumentKind.UPSTREAM)):
                read = parse_document(document.key, document.body)
                if isinstance(read, Route):
                    routes.append(read)
                elif isinstance(read, Upstream):
                    upstreams[read.service] = read
                else:
                    self.unreadable[str(document.key)] = read
            intent = Intent(tuple(routes), MappingProxyType(upstreams))
            self._latest = documents, intent
        return intent
