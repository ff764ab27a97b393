"""The hot path: reading a service is one look-up, and what is found is everything that goes over the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from adsum.dialects.native.api.operation_table import BASE
from adsum.dialects.native.asgi import BODY_PIECE_BYTES, ApiReply, Headers
from adsum.dialects.native.pages.pages import Page, Pages, etag_matches
from adsum.registry import Registry

_SERVICES: Final = f"{BASE}/services/".encode()


class EncodedReply(NamedTuple):
    """An answer as HTTP/1.1 writes it, from behind the status line and the date on."""

    status: int
    text: bytes


@dataclass(frozen=True, slots=True)
class ServiceReplies:
    """Both answers about a service."""

    etag: str
    full: EncodedReply
    unchanged: EncodedReply


class FastPath:
    """Answers that need no waiting: plain GETs of known services whose pages are short."""

    def __init__(self, registry: Registry, pages: Pages) -> None:
        self._registry = registry
        self._pages = pages
        self._ready: dict[bytes, ServiceReplies] = {}
        """True while the catalog is at `_snapshot` and `_age`, and dropped then."""
        self._snapshot, self._age = registry.snapshot, 0.0

    def reply(self, target: bytes, headers: Headers) -> EncodedReply | None:
        """The answer to a GET of that path; None if it is not one of these."""
        registry = self._registry
        snapshot, age = registry.snapshot, registry.age()
        if snapshot is not self._snapshot or age != self._age:
            self._snapshot, self._age = snapshot, age
            self._ready.clear()
        ready = self._ready.get(target) or self._made(target)
        if ready is None:
            return None
        for name, value in headers:
            if name == b"if-none-match" and etag_matches(value.decode("latin-1"), ready.etag):
                return ready.unchanged
        return ready.full

    def _made(self, target: bytes) -> ServiceReplies | None:
        if not target.startswith(_SERVICES):
            return None
        name = target[len(_SERVICES) :].decode("latin-1")
        if name not in self._snapshot.services:
            return None
        page = self._pages.page(name, None)
        if len(page.body) > BODY_PIECE_BYTES:
            return None
        ready = self._ready[target] = _ready(page)
        return ready


def _ready(page: Page) -> ServiceReplies:
    return ServiceReplies(page.etag, _answer(page.reply(None)), _answer(page.reply(page.etag)))


def _answer(reply: ApiReply) -> EncodedReply:
    return EncodedReply(reply.status, reply.encode())
