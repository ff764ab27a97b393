"""Routes and upstreams as documents that the registry stores, and the intent that all documents together declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta, Raw

from adsum.core.access.scopes import NamePatterns
from adsum.core.catalog.documents import (
    MAX_DOCUMENTS,
    Document,
    DocumentKey,
    DocumentKind,
    Documents,
    EditKind,
    RecordedEdit,
    intent_changed,
)
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError, Invalid
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.named_services import named_services
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.upstreams import Upstream
from adsum.gateway.route_check.availability import Availability, availability
from adsum.wire.codec import decode, encode
from adsum.wire.durations import convert_field
from adsum.wire.requests import RequestBody
from adsum.wire.responses import ResponseBody
from adsum.wire.routes import RouteBody
from adsum.wire.upstreams import UpstreamBody

_Body = TypeVar("_Body", RouteBody, UpstreamBody)

MAX_PARSED_DOCUMENTS: Final = 2 * MAX_DOCUMENTS
"""Parsed documents that are cached. Past it the one that was used longest ago is dropped."""


class IntentBody(RequestBody, frozen=True):
    """All routes and all upstreams. Each has its name, or its service, as a field."""

    routes: Annotated[list[RouteBody], Meta(max_length=MAX_DOCUMENTS)] = []
    upstreams: Annotated[list[UpstreamBody], Meta(max_length=MAX_DOCUMENTS)] = []

    def to_documents(self) -> dict[DocumentKey, bytes]:
        """Returns the encoded documents. Raises `Invalid`."""
        return _documents(self.routes, self.upstreams)

    @staticmethod
    def decode(body: bytes, checkpoint: Callable[[], None]) -> dict[DocumentKey, bytes]:
        """Returns the encoded documents of a body. Raises `Invalid`.

        Decodes one route or upstream at a time, with a call of `checkpoint` before each: to decode all at once would
        hold Python's global lock for as long as it takes.
        """
        intent = decode(body, _RawIntent)

        def read(field: str, n: int, piece: Raw, kind: type[_Body]) -> _Body:
            checkpoint()
            return convert_field(f"{field}[{n}]", partial(decode, bytes(piece), kind))

        routes = (read("routes", n, piece, RouteBody) for n, piece in enumerate(intent.routes))
        return _documents(
            routes, (read("upstreams", n, piece, UpstreamBody) for n, piece in enumerate(intent.upstreams))
        )


def _documents(routes: Iterable[RouteBody], upstreams: Iterable[UpstreamBody]) -> dict[DocumentKey, bytes]:
    documents: dict[DocumentKey, bytes] = {}
    for n, route in enumerate(routes):
        body = convert_field(f"routes[{n}]", partial(encode_route, route.name, route))
        _add(documents, DocumentKey(DocumentKind.ROUTE, route.name), body, f"routes[{n}].name")
    for n, upstream in enumerate(upstreams):
        body = convert_field(f"upstreams[{n}]", partial(encode_upstream, upstream.service, upstream))
        _add(documents, DocumentKey(DocumentKind.UPSTREAM, upstream.service), body, f"upstreams[{n}].service")
    return documents


class _RawIntent(RequestBody, frozen=True):
    """An `IntentBody` whose routes and upstreams are not decoded yet."""

    routes: Annotated[list[Raw], Meta(max_length=MAX_DOCUMENTS)] = []
    upstreams: Annotated[list[Raw], Meta(max_length=MAX_DOCUMENTS)] = []


def _add(documents: dict[DocumentKey, bytes], key: DocumentKey, body: bytes, field: str) -> None:
    if key in documents:
        raise Invalid(field, f"there is another {key} in the list")
    documents[key] = body


class EmptyTarget(ResponseBody, frozen=True):
    """A target of a route that takes no requests now: a service, or `SERVICE?tag=…&KEY=VALUE`.

    `availability` is `empty` (no instance of it takes requests) or `unknown` (no such service is known).
    """

    to: str
    availability: Availability


class RouteView(ResponseBody, frozen=True):
    """A route with the actor who declared it, and its targets that take no requests now. `at` is on the wall clock.

    `peer` is the address that the request came from; `claimed` is the actor that it named without proof.
    """

    route: RouteBody
    actor: str
    at: float
    empty_targets: list[EmptyTarget] = []
    peer: str = ""
    claimed: str = ""

    @staticmethod
    def from_document(document: Document, snapshot: Snapshot) -> RouteView:
        provenance, route = document.provenance, parse_document(document.key, document.body)
        selectors = [target.selector for target in route.to if target.weight] if isinstance(route, Route) else []
        targets = [EmptyTarget(selector.name, availability(selector, snapshot)) for selector in selectors]
        return RouteView(
            decode(document.body, RouteBody),
            provenance.actor,
            round(provenance.at, 3),
            [target for target in targets if target.availability is not Availability.AVAILABLE],
            provenance.peer,
            provenance.claimed,
        )


class RouteList(ResponseBody, frozen=True):
    """All routes, by name."""

    epoch: str
    revision: int
    routes: list[RouteView]

    @staticmethod
    def encode_all(snapshot: Snapshot, visible: NamePatterns, checkpoint: Callable[[], None]) -> bytes:
        """Returns the visible routes as JSON. Encodes one at a time, with a call of `checkpoint` before each."""
        documents = _visible(snapshot, DocumentKind.ROUTE, visible)
        routes = (RouteView.from_document(document, snapshot) for document in documents)
        return _encode_list(RouteList(snapshot.epoch, snapshot.revision, []), routes, checkpoint)


class UpstreamView(ResponseBody, frozen=True):
    """An upstream, which is how gateways treat a service, with the actor who declared it. `at` is on the wall clock.

    `peer` is the address that the request came from; `claimed` is the actor that it named without proof.
    """

    upstream: UpstreamBody
    actor: str
    at: float
    peer: str = ""
    claimed: str = ""

    @staticmethod
    def from_document(document: Document) -> UpstreamView:
        body, provenance = decode(document.body, UpstreamBody), document.provenance
        return UpstreamView(body, provenance.actor, round(provenance.at, 3), provenance.peer, provenance.claimed)


class UpstreamList(ResponseBody, frozen=True):
    """All upstreams, by service. Services without one have the defaults."""

    epoch: str
    revision: int
    upstreams: list[UpstreamView]

    @staticmethod
    def encode_all(snapshot: Snapshot, visible: NamePatterns, checkpoint: Callable[[], None]) -> bytes:
        """Returns the visible upstreams as JSON. Encodes one at a time, with a call of `checkpoint` before each."""
        upstreams = map(UpstreamView.from_document, _visible(snapshot, DocumentKind.UPSTREAM, visible))
        return _encode_list(UpstreamList(snapshot.epoch, snapshot.revision, []), upstreams, checkpoint)


def is_visible(document: Document, visible: NamePatterns) -> bool:
    """Returns whether all services that the route or upstream names are visible. An unreadable one is not."""
    if visible.is_all:
        return True
    parsed = parse_document(document.key, document.body)
    return not isinstance(parsed, str) and named_services(parsed).are_visible(visible)


def _visible(snapshot: Snapshot, kind: DocumentKind, visible: NamePatterns) -> list[Document]:
    return [document for document in snapshot.documents.of_kind(kind) if is_visible(document, visible)]


def _encode_list(empty_list: ResponseBody, views: Iterable[ResponseBody], checkpoint: Callable[[], None]) -> bytes:
    """Returns a response whose last field is an empty list, with the views in this list."""
    pieces = []
    for view in views:
        checkpoint()
        pieces.append(encode(view))
    return b"".join((encode(empty_list).removesuffix(b"]}"), b",".join(pieces), b"]}"))


class EditView(ResponseBody, frozen=True):
    """A recorded edit of a document, such as a route, with actor and reason. `at` is on the wall clock.

    `before` and `after` have the fields that changed. `omitted` names the fields that are secret or too long to record.
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
    claimed: str = ""

    @staticmethod
    def from_recorded(recorded: RecordedEdit) -> EditView:
        key, provenance = recorded.key, recorded.provenance
        before, after = (
            {name: Raw(value) for name, value in part.items()} for part in (recorded.before, recorded.after)
        )
        return EditView(
            recorded.revision,
            key.kind,
            key.name,
            recorded.kind,
            provenance.actor,
            round(provenance.at, 3),
            provenance.reason,
            before,
            after,
            [*recorded.omitted],
            provenance.claimed,
        )


class EditList(ResponseBody, frozen=True):
    """Recorded edits, newest first."""

    epoch: str
    revision: int
    edits: list[EditView]


def encode_route(name: str, body: RouteBody) -> bytes:
    """Returns the route as a document. Raises `Invalid`."""
    return encode(RouteBody.from_route(body.to_route(name)))


def encode_upstream(service: str, body: UpstreamBody) -> bytes:
    """Returns the upstream as a document. Raises `Invalid`."""
    return encode(UpstreamBody.from_upstream(body.to_upstream(service)))


@lru_cache(maxsize=MAX_PARSED_DOCUMENTS)
def parse_document(key: DocumentKey, body: bytes) -> Route | Upstream | str:
    """Returns the route or upstream of a document. Returns the problem, as a text, if the document can't be read."""
    try:
        if key.kind is DocumentKind.ROUTE:
            return decode(body, RouteBody).to_route(key.name)
        return decode(body, UpstreamBody).to_upstream(key.name)
    except AdsumError as error:
        return str(error)


class IntentCache:
    """Caches the intent of the latest documents. Each document is parsed once, however often others change."""

    def __init__(self) -> None:
        self._latest: tuple[Documents | None, Intent] = (None, NO_INTENT)
        self.unreadable: dict[str, str] = {}
        """The problem of each document that could not be read, by the key of the document.

        A later version of Adsum wrote these documents. The intent is without them.
        """

    def get(self, documents: Documents) -> Intent:
        """Returns the intent of the documents."""
        known, intent = self._latest
        if known is None or intent_changed(known, documents):
            routes: list[Route] = []
            upstreams: dict[str, Upstream] = {}
            self.unreadable = {}
            for document in (*documents.of_kind(DocumentKind.ROUTE), *documents.of_kind(DocumentKind.UPSTREAM)):
                parsed = parse_document(document.key, document.body)
                if isinstance(parsed, Route):
                    routes.append(parsed)
                elif isinstance(parsed, Upstream):
                    upstreams[parsed.service] = parsed
                else:
                    self.unreadable[str(document.key)] = parsed
            intent = Intent(tuple(routes), MappingProxyType(upstreams))
            self._latest = documents, intent
        return intent
