"""Where each store of the table is found, and how tests follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from adsum import stores
from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, Edit
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.ports import Store

STORE_URLS: Final[dict[str, Callable[[Path], str]]] = {
    "memory": lambda folder: "memory:",
    "sqlite": lambda folder: f"sqlite:///{folder}/adsum.db",
}
"""A URL of each store that lives in a folder. One that has none, here or there, fails the contract suite."""

Listings = dict[Key, Listing]


@dataclass
class StoreLocation:
    """One place of a store, where it is opened again and again."""

    url: str
    zero: int = -1
    """The revision of the store before anything was written."""
    _kept: Store | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """As after a restart of the node. Memory lasts as long as its process, so it is the same one again."""
        if self._kept is None or not self.url.startswith("memory:"):
            self._kept = stores.store(self.url)
        store = self._kept
        await store.open()
        try:
            if self.zero < 0:
                self.zero = (await current_snapshot(store)).revision
            yield store
        finally:
            await store.close()


class StreamFollower:
    """Folds a store's stream, as a registry does."""

    def __init__(self, stream: AsyncIterator[FullState | Batch]) -> None:
        self._stream = stream
        self.snapshot: Snapshot = snapshots.EMPTY_SNAPSHOT
        self.wholes = 0

    async def next(self) -> FullState | Batch:
        """What the stream says next, folded."""
        async with asyncio.timeout(20.0):
            event = await anext(self._stream)
        if isinstance(event, FullState):
            self.snapshot, self.wholes = snapshots.load_snapshot(event), self.wholes + 1
        else:
            assert event.revision > self.snapshot.revision, "batches come in order, once"
            self.snapshot = self.snapshot.apply(event)
        return event

    async def reach(self, revision: int) -> Snapshot:
        """Follow until the snapshot is there."""
        while not self.wholes or self.snapshot.revision < revision:
            await self.next()
        return self.snapshot


@asynccontextmanager
async def open_follower(store: Store) -> AsyncIterator[StreamFollower]:
    """A follower from now until the end of the block."""
    stream = cast("AsyncGenerator[FullState | Batch]", store.watch())
    try:
        yield StreamFollower(stream)
    finally:
        await stream.aclose()


async def current_snapshot(store: Store) -> Snapshot:
    """What a new follower is shown first."""
    async with open_follower(store) as follower:
        assert isinstance(await follower.next(), FullState)
        return follower.snapshot


def current_listings(snapshot: Snapshot) -> Listings:
    """Everything that is listed."""
    return {listing.key: listing for service in snapshot.services.values() for listing in service.listings.values()}


def change(id: str, port: int | None = 8000, service: str = "orders") -> Change:
    """The instance comes, or changes to that port; None: it leaves."""
    if port is None:
        return Change(Key(service, id), None, Provenance(Cause.DEREGISTERED, "tester"))
    why = Provenance(Cause.REGISTERED, "tester")
    return Change(Key(service, id), Listing(Registration(Instance(service, id, "127.0.0.1", port)), why), why)


def put_route(name: str, says: bytes = b"{}", before: Edit | None = None, reason: str = "") -> Edit:
    """From now on that route is declared so; until now it was as `before` made it."""
    title, why = DocumentKey(DocumentKind.ROUTE, name), Provenance(Cause.DECLARED, "tester", reason, at=5.0)
    return Edit(title, Document(title, says, why), why, None if before is None else before.document)


def withdraw_route(name: str, before: Edit | None = None) -> Edit:
    """From now on that route is gone."""
    why = Provenance(Cause.WITHDRAWN, "tester", at=6.0)
    return Edit(DocumentKey(DocumentKind.ROUTE, name), None, why, None if before is None else before.document)
