"""The stores of the table for tests, and helpers that follow a store's stream."""

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
"""Scheme → URL of a store in a folder. The contract suite fails for a store without an entry; etcd has a fixture."""

Listings = dict[Key, Listing]


@dataclass
class StoreLocation:
    """The location of a store, at which a test opens it repeatedly."""

    url: str
    zero: int = -1
    """The revision of the store before anything was written."""
    _store: Store | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """Opens the store as after a restart of the node. A memory store is the same object again."""
        if self._store is None or not self.url.startswith("memory:"):
            self._store = stores.store(self.url)
        store = self._store
        await store.open()
        try:
            if self.zero < 0:
                self.zero = (await current_snapshot(store)).revision
            yield store
        finally:
            await store.close()


class StreamFollower:
    """Applies a store's stream to a snapshot, as a registry does."""

    def __init__(self, stream: AsyncIterator[FullState | Batch]) -> None:
        self._stream = stream
        self.snapshot: Snapshot = snapshots.EMPTY_SNAPSHOT
        self.full_states = 0
        """The number of full states in the stream so far."""

    async def next(self) -> FullState | Batch:
        """Returns the next event of the stream, after applying it."""
        async with asyncio.timeout(20.0):
            event = await anext(self._stream)
        if isinstance(event, FullState):
            self.snapshot, self.full_states = snapshots.load_snapshot(event), self.full_states + 1
        else:
            assert event.revision > self.snapshot.revision, "batches come in order, each once"
            self.snapshot = self.snapshot.apply(event)
        return event

    async def reach(self, revision: int) -> Snapshot:
        """Follows until the snapshot is at the revision."""
        while not self.full_states or self.snapshot.revision < revision:
            await self.next()
        return self.snapshot


@asynccontextmanager
async def open_follower(store: Store) -> AsyncIterator[StreamFollower]:
    """A follower of the store until the end of the block."""
    stream = cast("AsyncGenerator[FullState | Batch]", store.watch())
    try:
        yield StreamFollower(stream)
    finally:
        await stream.aclose()


@asynccontextmanager
async def follow_in_background(store: Store) -> AsyncIterator[StreamFollower]:
    """A follower that has the full state, and reads the rest of the stream in a task of its own."""

    async def follow() -> None:
        while True:
            await follower.next()

    async with open_follower(store) as follower:
        await follower.next()
        task = asyncio.create_task(follow())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def current_snapshot(store: Store) -> Snapshot:
    """Returns the state that a new follower gets first."""
    async with open_follower(store) as follower:
        assert isinstance(await follower.next(), FullState)
        return follower.snapshot


def current_listings(snapshot: Snapshot) -> Listings:
    """Returns all listings by key."""
    return {listing.key: listing for service in snapshot.services.values() for listing in service.listings.values()}


def change(id: str, port: int | None = 8000, service: str = "orders") -> Change:
    """Returns a change that lists an instance at that port, or removes it if the port is None."""
    if port is None:
        return Change(Key(service, id), None, Provenance(Cause.DEREGISTERED, "tester"))
    why = Provenance(Cause.REGISTERED, "tester")
    return Change(Key(service, id), Listing(Registration(Instance(service, id, "127.0.0.1", port)), why), why)


def put_route(name: str, body: bytes = b"{}", before: Edit | None = None, reason: str = "") -> Edit:
    """Returns an edit that declares a route, after the edit `before`."""
    key, why = DocumentKey(DocumentKind.ROUTE, name), Provenance(Cause.DECLARED, "tester", reason, at=5.0)
    return Edit(key, Document(key, body, why), why, None if before is None else before.document)


def put_token(name: str, body: bytes = b"{}", before: Edit | None = None, *, is_recorded: bool = True) -> Edit:
    """Returns an edit that declares a token, after the edit `before`."""
    key, why = DocumentKey(DocumentKind.TOKEN, name), Provenance(Cause.DECLARED, "tester", at=5.0)
    return Edit(key, Document(key, body, why), why, None if before is None else before.document, is_recorded)


def withdraw_route(name: str, before: Edit | None = None) -> Edit:
    """Returns an edit that withdraws a route, after the edit `before`."""
    why = Provenance(Cause.WITHDRAWN, "tester", at=6.0)
    return Edit(DocumentKey(DocumentKind.ROUTE, name), None, why, None if before is None else before.document)
