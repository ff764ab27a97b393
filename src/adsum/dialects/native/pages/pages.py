"""What the dialect says of a service, computed once a change and served as bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.asgi import JSON, ApiReply, Headers
from adsum.dialects.native.pages.byte_cache import ByteCache
from adsum.dialects.native.requests.instance_filter import InstanceFilter
from adsum.dialects.native.worker import WorkerThread
from adsum.registry import Registry

MAX_FILTERED_PAGE_BYTES: Final = 32 * 1024 * 1024
"""How many bytes of filtered pages are kept; past it those asked for longest ago are computed again."""
EMPTY_PAGE_BYTES: Final = 1_000
"""Bytes of a page without instances."""
MAX_SERVICES_LISTED_INLINE: Final = 1_000
"""Services that are listed at once; a longer list holds up nobody."""

_NO_CACHE: Final = (b"cache-control", b"no-cache")
_EPOCH: Final = wire.EPOCH_HEADER.lower().encode()
_REVISION: Final = wire.REVISION_HEADER.lower().encode()
_AGE: Final = wire.AGE_HEADER.lower().encode()


class ServiceJson:
    """A service in JSON, one piece an instance. Following a change encodes anew only what changed."""

    __slots__ = ("_pieces", "body", "epoch", "service")

    def __init__(self, epoch: str, service: ServiceSnapshot) -> None:
        self.epoch = epoch
        self.service = service
        self._pieces = {id: wire.encode(wire.InstanceView.from_listing(each)) for id, each in service.listings.items()}
        self.body = self._join(service.listings)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, with the instances that are on it."""
        return EMPTY_PAGE_BYTES + self.service.size

    def update(self, service: ServiceSnapshot) -> None:
        """Become the page of a later snapshot of the same epoch."""
        before, self.service = self.service, service
        diff = service.diff_since(before.revision)
        if diff is None:
            left = before.listings.keys() - service.listings.keys()
            changed = [new for id, new in service.listings.items() if before.listings.get(id) is not new]
        else:
            left, changed = {change.key.id for change in diff.removed}, list(diff.changed)
        for id in left:
            self._pieces.pop(id, None)
        for listing in changed:
            self._pieces[listing.instance.id] = wire.encode(wire.InstanceView.from_listing(listing))
        self.body = self._join(service.listings)

    def filtered(self, narrow: InstanceFilter) -> bytes:
        """The page of those instances alone that the filter admits."""
        return self._join(id for id, listing in self.service.listings.items() if narrow.matches(listing))

    def _join(self, ids: Iterable[str]) -> bytes:
        blank = wire.encode(wire.ServiceView(self.epoch, self.service.name, self.service.revision, []))
        pieces = b",".join(map(self._pieces.__getitem__, ids))
        return b"".join((blank.removesuffix(b"]}"), pieces, b"]}"))


@dataclass(frozen=True, slots=True)
class Page:
    """An answer ready to be sent, true while the catalog is at `snapshot` and `age`."""

    snapshot: Snapshot
    age: float
    etag: str
    headers: Headers
    body: bytes

    def reply(self, if_none_match: str | None) -> ApiReply:
        """The page, or 304 if the caller has it: `if_none_match` is its If-None-Match."""
        known = if_none_match is not None and etag_matches(if_none_match, self.etag)
        return ApiReply(304, b"", self.headers) if known else ApiReply(200, self.body, self.headers)


def etag(epoch: str, revision: int, instance_filter: InstanceFilter | None) -> str:
    """What marks a page at a revision; pages narrowed in other ways are other pages."""
    return f'"{epoch}-{revision}"' if instance_filter is None else f'"{epoch}-{revision}-{instance_filter.digest}"'


def _page(snapshot: Snapshot, age: float, revision: int, body: bytes, narrow: InstanceFilter | None = None) -> Page:
    mark = etag(snapshot.epoch, revision, narrow)
    headers = (
        JSON,
        _NO_CACHE,
        (b"etag", mark.encode()),
        (_EPOCH, snapshot.epoch.encode()),
        (_REVISION, b"%d" % snapshot.revision),
        (_AGE, b"%.3f" % age if age else b"0"),
    )
    return Page(snapshot, age, mark, headers, body)


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Whether If-None-Match names the etag (RFC 9110 § 13.1.2: compared weakly, `*` names any)."""
    return if_none_match.strip() == "*" or any(
        tag.strip().removeprefix("W/") == etag for tag in if_none_match.split(",")
    )


class Pages:
    """The pages of every service that somebody reads.

    They take as much memory as registrations may, counted as those are; past it the one read longest ago is dropped.
    So a page that nobody reads any more does not hold for ever what has left the catalog since.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._sheets: OrderedDict[str, ServiceJson] = OrderedDict()
        self._seen = registry.snapshot.epoch, registry.snapshot.revision
        self.size = 0
        """Bytes of memory that the pages take, with the instances that are on them."""
        self._summaries: dict[str, tuple[tuple[str, int], bytes]] = {}
        """Of each service its epoch and revision, and what was said of it then."""
        self._narrowed = ByteCache(MAX_FILTERED_PAGE_BYTES)
        self._lists = WorkerThread()

    def __len__(self) -> int:
        """How many services' pages are kept ready."""
        return len(self._sheets)

    def body(self, snapshot: Snapshot, service: ServiceSnapshot) -> bytes:
        """The service as JSON."""
        return self._sheet(snapshot, service).body

    def page(self, name: str, instance_filter: InstanceFilter | None) -> Page:
        """The newest page of a service, known or not, or of those of its instances that `narrow` admits."""
        snapshot, age = self._registry.snapshot, self._registry.age()
        service = snapshot.service(name)
        if instance_filter is None:
            return _page(snapshot, age, service.revision, self.body(snapshot, service))
        key = (snapshot.epoch, name, service.revision, instance_filter)
        body = self._narrowed.get(key, lambda: self._sheet(snapshot, service).filtered(instance_filter))
        return _page(snapshot, age, service.revision, body, instance_filter)

    async def services(self) -> Page:
        """The newest list of all services, by name; a long one is made in a thread, one after the other."""
        snapshot, age = self._registry.snapshot, self._registry.age()
        self._drop_emptied(snapshot)
        if len(snapshot.services) <= MAX_SERVICES_LISTED_INLINE:
            return self._listed(snapshot, age, _at_once)
        return await self._lists.run(lambda before_each: self._listed(snapshot, age, before_each))

    def _listed(self, snapshot: Snapshot, age: float, before_each: Callable[[], None]) -> Page:
        summaries: dict[str, tuple[tuple[str, int], bytes]] = {}
        for name, service in snapshot.services.items():
            before_each()
            summaries[name] = self._summary(snapshot.epoch, service)
        self._summaries = summaries
        blank = wire.encode(wire.ServiceList(snapshot.epoch, snapshot.revision, []))
        pieces = b",".join([summaries[name][1] for name in sorted(summaries)])
        return _page(snapshot, age, snapshot.revision, b"".join((blank.removesuffix(b"]}"), pieces, b"]}")))

    def _summary(self, epoch: str, service: ServiceSnapshot) -> tuple[tuple[str, int], bytes]:
        at = epoch, service.revision
        known = self._summaries.get(service.name)
        return known if known is not None and known[0] == at else (at, wire.encode(summarize(service)))

    def _sheet(self, snapshot: Snapshot, service: ServiceSnapshot) -> ServiceJson:
        self._drop_emptied(snapshot)
        sheet = self._sheets.get(service.name)
        if sheet is not None and sheet.service is service and sheet.epoch == snapshot.epoch:
            self._sheets.move_to_end(service.name)
            return sheet
        if sheet is not None:
            self._drop(service.name)
        if sheet is not None and sheet.epoch == snapshot.epoch:
            sheet.update(service)
        else:
            sheet = ServiceJson(snapshot.epoch, service)
        if service.listings:
            self._sheets[service.name] = sheet
            self.size += sheet.size
            while self.size > self._registry.max_catalog_bytes and len(self._sheets) > 1:
                self._drop(next(iter(self._sheets)))
        return sheet

    def _drop(self, name: str) -> None:
        self.size -= self._sheets.pop(name).size

    def _drop_emptied(self, snapshot: Snapshot) -> None:
        """Drop the pages of services that have no instance any more; an empty page is quickly made."""
        at, self._seen = self._seen, (snapshot.epoch, snapshot.revision)
        if at == self._seen:
            return
        names = snapshot.names_changed_since(*at)
        for name in names if names is not None else [*self._sheets]:
            if name in self._sheets and not snapshot.listed_count(name):
                self._drop(name)


def _at_once() -> None:
    """Go on."""


def summarize(service: ServiceSnapshot) -> wire.ServiceSummary:
    """How many instances of a service stand how."""
    status: dict[str, int] = {}
    for listing in service.listings.values():
        status[listing.status.value] = status.get(listing.status.value, 0) + 1
    return wire.ServiceSummary(service.name, service.revision, len(service.listings), status)
