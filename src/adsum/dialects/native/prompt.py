"""The hot path: reading a service is one look-up, and what is found is everything that goes over the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from adsum.core.catalog import Snapshot
from adsum.dialects.native.asgi import PIECE, Headers, Reply
from adsum.dialects.native.pages import Page, Pages, matches
from adsum.dialects.native.routes import BASE
from adsum.registry import Registry

SPARE: Final = 256
"""How many answers about forgotten services are carried beside the known ones; past it they are dropped."""

_SERVICES: Final = f"{BASE}/services/".encode()


class Answer(NamedTuple):
    """An answer as HTTP/1.1 writes it, from behind the status line and the date on."""

    status: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """Both answers about a service, true while the catalog is at `snapshot` and `age`."""

    snapshot: Snapshot
    age: float
    etag: str
    full: Answer
    unchanged: Answer


class Prompt:
    """Answers that need no waiting: plain GETs of known services whose pages are short."""

    def __init__(self, registry: Registry, pages: Pages) -> None:
        self._registry = registry
        self._pages = pages
        self._ready: dict[bytes, Ready] = {}

    def answer(self, target: bytes, headers: Headers) -> Answer | None:
        """The answer to a GET of that path; None if it is not one of these."""
        ready, registry = self._ready.get(target), self._registry
        if ready is None or ready.snapshot is not registry.snapshot or ready.age != registry.age():
            ready = self._made(target)
            if ready is None:
                return None
        for name, value in headers:
            if name == b"if-none-match" and matches(value.decode("latin-1"), ready.etag):
                return ready.unchanged
        return ready.full

    def _made(self, target: bytes) -> Ready | None:
        snapshot = self._registry.snapshot
        if not target.startswith(_SERVICES):
            return None
        name = target[len(_SERVICES) :].decode("latin-1")
        if name not in snapshot.services:
            return None
        page = self._pages.page(name, None)
        if len(page.body) > PIECE:
            self._ready.pop(target, None)
            return None
        ready = self._ready[target] = _ready(page)
        if len(self._ready) > len(snapshot.services) + SPARE:
            self._ready = {path: each for path, each in self._ready.items() if each.snapshot is snapshot}
        return ready


def _ready(page: Page) -> Ready:
    full, unchanged = page.reply(None), page.reply(page.etag)
    return Ready(page.snapshot, page.age, page.etag, _answer(full), _answer(unchanged))


def _answer(reply: Reply) -> Answer:
    return Answer(reply.status, reply.text())
