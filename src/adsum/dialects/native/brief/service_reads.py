"""Brief reads of a service: one look-up finds the bytes of the whole response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from adsum.core.errors import AdsumError
from adsum.dialects.native.api.operation import BASE
from adsum.dialects.native.asgi import BODY_PIECE_BYTES, ApiReply
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders
from adsum.dialects.native.pages.pages import Page, Pages, etag_matches
from adsum.registry import Registry

_SERVICES: Final = f"{BASE}/services/".encode()


class EncodedReply(NamedTuple):
    """A response in HTTP/1.1, without the status line and the default headers."""

    status: int
    text: bytes


@dataclass(frozen=True, slots=True)
class ServiceReplies:
    """Both responses about a service: the page, and 304 for a caller that has it."""

    service: str
    etag: str
    full: EncodedReply
    unchanged: EncodedReply


class ServiceReads:
    """Answers plain GETs of known services with short pages."""

    def __init__(self, registry: Registry, pages: Pages) -> None:
        self._registry = registry
        self._pages = pages
        self._replies: dict[bytes, ServiceReplies] = {}
        """Request target → responses. They are current while the catalog has `_snapshot` and `_age`."""
        self._snapshot, self._age = registry.snapshot, 0.0

    def reply(self, target: bytes, headers: PreparedHeaders) -> EncodedReply | None:
        """Returns the response to a GET of the target, None if it needs the router.

        The router also answers callers that may not read the service. All others share the bytes of the response.
        """
        registry = self._registry
        snapshot, age = registry.snapshot, registry.age()
        if snapshot is not self._snapshot or age != self._age:
            self._snapshot, self._age = snapshot, age
            self._replies.clear()
        replies = self._replies.get(target)
        service = replies.service if replies is not None else _service_name(target)
        if service is None:
            return None
        try:
            principal = headers.caller.identify()
        except AdsumError:
            return None
        visible = principal.scopes.visible
        # Before anything that takes longer for a service that exists: the time would reveal that, and cost the node.
        if not (visible.is_all or visible.includes(service)):
            return None
        if replies is None and (replies := self._make(target, service)) is None:
            return None
        tags = headers.entity_tags
        return replies.unchanged if tags and etag_matches(tags, replies.etag) else replies.full

    def _make(self, target: bytes, name: str) -> ServiceReplies | None:
        if name not in self._snapshot.services:
            return None
        page = self._pages.page(name, None)
        if len(page.body) > BODY_PIECE_BYTES:
            return None
        replies = self._replies[target] = _encode_page(name, page)
        return replies


def _service_name(target: bytes) -> str | None:
    """Returns the service that a target names, which may not exist; None if the target is another one."""
    if not target.startswith(_SERVICES):
        return None
    name = target[len(_SERVICES) :].decode("latin-1")
    return None if "/" in name or "?" in name else name


def _encode_page(service: str, page: Page) -> ServiceReplies:
    return ServiceReplies(service, page.etag, _encode(page.reply(None)), _encode(page.reply(page.etag)))


def _encode(reply: ApiReply) -> EncodedReply:
    return EncodedReply(reply.status, reply.encode())
