"""The JSON pages of services: computed once per change, and served as bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from adsum import wire
from adsum.core.access.scopes import ALL_NAMES, NamePatterns
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.asgi import JSON, ApiReply, Headers, PiecedBody
from adsum.dialects.native.pages.byte_cache import ByteCache
from adsum.dialects.native.pages.service_json import ServiceJson
from adsum.dialects.native.requests.instance_filter import InstanceFilter
from adsum.dialects.native.worker import WorkerThread
from adsum.registry import Registry

MAX_FILTERED_PAGE_BYTES: Final = 32 * 1024 * 1024
"""Bytes of filtered pages that are kept. Past it the pages that were read longest ago are dropped."""
EMPTY_PAGE_BYTES: Final = 1_000
"""Bytes of a page without instances."""
MAX_SERVICES_LISTED_INLINE: Final = 1_000
"""Services that are listed in the event loop. A longer list is made in a thread, so that other requests go on."""

_NO_CACHE: Final = (b"cache-control", b"no-cache")
_EPOCH: Final = wire.EPOCH_HEADER.lower().encode()
_REVISION: Final = wire.REVISION_HEADER.lower().encode()
_AGE: Final = wire.AGE_HEADER.lower().encode()


@dataclass(frozen=True, slots=True)
class Page:
    """A response that is ready to send. It is current while the catalog has this snapshot and this age."""

    snapshot: Snapshot
    age: float
    etag: str
    headers: Headers
    body: bytes | PiecedBody

    def reply(self, if_none_match: str | None) -> ApiReply:
        """Returns the page, or 304 if the caller has it. `if_none_match`: the entity tags that the caller sent."""
        is_current = if_none_match is not None and etag_matches(if_none_match, self.etag)
        return ApiReply(304, b"", self.headers) if is_current else ApiReply(200, self.body, self.headers)


class PageSelection(Protocol):
    """What a page is limited to."""

    @property
    def digest(self) -> str:
        """A short text that identifies it: the same in every process."""
        ...


def etag(epoch: str, revision: int, selection: PageSelection | None) -> str:
    """Returns the entity tag of a page at a revision. Another selection makes another page."""
    return f'"{epoch}-{revision}"' if selection is None else f'"{epoch}-{revision}-{selection.digest}"'


def _page(
    snapshot: Snapshot, age: float, revision: int, body: bytes | PiecedBody, selection: PageSelection | None = None
) -> Page:
    tag = etag(snapshot.epoch, revision, selection)
    headers = (
        JSON,
        _NO_CACHE,
        (b"etag", tag.encode()),
        (_EPOCH, snapshot.epoch.encode()),
        (_REVISION, b"%d" % snapshot.revision),
        (_AGE, b"%.3f" % age if age else b"0"),
    )
    return Page(snapshot, age, tag, headers, body)


def page_size(service: ServiceSnapshot) -> int:
    """Returns the bytes of memory that the page of a service and its instances take."""
    return EMPTY_PAGE_BYTES + service.size


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Returns whether If-None-Match has the entity tag (RFC 9110 § 13.1.2: weak comparison; `*` matches any)."""
    return if_none_match.strip() == "*" or any(
        tag.strip().removeprefix("W/") == etag for tag in if_none_match.split(",")
    )


class Pages:
    """The pages of services that are read.

    They take at most as much memory as registrations may, counted in the same way. Past it the page that was read
    longest ago is dropped: otherwise a page without readers would keep instances that left the catalog.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._services: OrderedDict[str, ServiceJson] = OrderedDict()
        self._checked_at = registry.snapshot.epoch, registry.snapshot.revision
        self.size = 0
        """Bytes of memory that the pages and their instances take."""
        self._summaries: dict[str, tuple[tuple[str, int], bytes]] = {}
        """By service: the epoch and revision, and the encoded summary at it."""
        self._filtered = ByteCache(MAX_FILTERED_PAGE_BYTES)
        self._list_worker = WorkerThread()

    def __len__(self) -> int:
        """The number of pages that are kept."""
        return len(self._services)

    def body(self, snapshot: Snapshot, service: ServiceSnapshot) -> PiecedBody:
        """Returns the service as JSON."""
        return self._service_json(snapshot, service).body

    def page(self, name: str, instance_filter: InstanceFilter | None) -> Page:
        """Returns the newest page of a service, with the instances that match. An unknown service has no instances."""
        snapshot, age = self._registry.snapshot, self._registry.age()
        service = snapshot.service(name)
        if instance_filter is None:
            return _page(snapshot, age, service.revision, self.body(snapshot, service))
        key = (snapshot.epoch, name, service.revision, instance_filter)
        body = self._filtered.get(key, lambda: self._service_json(snapshot, service).filtered(instance_filter.matches))
        return _page(snapshot, age, service.revision, body, instance_filter)

    async def services(self, visible: NamePatterns = ALL_NAMES) -> Page:
        """Returns the newest list of all visible services, by name. Long lists are made in a thread, one at a time."""
        snapshot, age = self._registry.snapshot, self._registry.age()
        self._drop_emptied(snapshot)
        if len(snapshot.services) <= MAX_SERVICES_LISTED_INLINE:
            return self._listed(snapshot, age, visible, _no_checkpoint)
        return await self._list_worker.run(lambda checkpoint: self._listed(snapshot, age, visible, checkpoint))

    def _listed(self, snapshot: Snapshot, age: float, visible: NamePatterns, checkpoint: Callable[[], None]) -> Page:
        summaries: dict[str, tuple[tuple[str, int], bytes]] = {}
        for name, service in snapshot.services.items():
            checkpoint()
            summaries[name] = self._summary(snapshot.epoch, service)
        self._summaries = summaries
        empty_list = wire.encode(wire.ServiceList(snapshot.epoch, snapshot.revision, []))
        names = sorted(summaries if visible.is_all else filter(visible.includes, summaries))
        pieces = b",".join([summaries[name][1] for name in names])
        body = b"".join((empty_list.removesuffix(b"]}"), pieces, b"]}"))
        return _page(snapshot, age, snapshot.revision, body, None if visible.is_all else visible)

    def _summary(self, epoch: str, service: ServiceSnapshot) -> tuple[tuple[str, int], bytes]:
        at = epoch, service.revision
        known = self._summaries.get(service.name)
        return known if known is not None and known[0] == at else (at, wire.encode(summarize(service)))

    def _service_json(self, snapshot: Snapshot, service: ServiceSnapshot) -> ServiceJson:
        self._drop_emptied(snapshot)
        page = self._services.get(service.name)
        if page is not None and page.service is service and page.epoch == snapshot.epoch:
            self._services.move_to_end(service.name)
            return page
        if page is not None:
            self._drop(service.name)
        if page is not None and page.epoch == snapshot.epoch:
            page.update(service)
        else:
            page = ServiceJson(snapshot.epoch, service)
        if service.listings:
            self._services[service.name] = page
            self.size += page_size(page.service)
            while self.size > self._registry.max_catalog_bytes and len(self._services) > 1:
                self._drop(next(iter(self._services)))
        return page

    def _drop(self, name: str) -> None:
        self.size -= page_size(self._services.pop(name).service)

    def _drop_emptied(self, snapshot: Snapshot) -> None:
        """Drops the pages of services without instances. An empty page is quickly made again."""
        last, self._checked_at = self._checked_at, (snapshot.epoch, snapshot.revision)
        if last == self._checked_at:
            return
        names = snapshot.names_changed_since(*last)
        for name in names if names is not None else [*self._services]:
            if name in self._services and not snapshot.listed_count(name):
                self._drop(name)


def _no_checkpoint() -> None:
    """A checkpoint that does nothing."""


def summarize(service: ServiceSnapshot) -> wire.ServiceSummary:
    """Returns the summary of a service: how many instances have which status."""
    counts: dict[str, int] = {}
    for listing in service.listings.values():
        counts[listing.status.value] = counts.get(listing.status.value, 0) + 1
    return wire.ServiceSummary(service.name, service.revision, len(service.listings), counts)
