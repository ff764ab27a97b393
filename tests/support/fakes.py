"""Fakes for tests: a clock that the test advances, a store that fails on request, and a sharding that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence, Set
from heapq import heappop, heappush
from itertools import count
from math import isfinite

from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.errors import StoreConflict, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.core.nodes.sharding import Peer, SingleNode, shard_of
from adsum.stores.edit_log import EditLog, edit_records


class FakeClock:
    """Implements `ports.Clock`. Sleepers wake when `advance` passes their instant, in its order."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._ahead = wall - now
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._ahead

    async def sleep(self, length: float) -> None:
        if length <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._now + length, next(self._order), waiter))
        await waiter

    def jump(self, length: float) -> None:
        """Advances by `length` seconds at once, as if the process had been suspended."""
        assert length >= 0
        assert isfinite(length)
        self._now += length
        self._wake()

    async def advance(self, length: float) -> None:
        """Advances by `length` seconds. Wakes each sleeper at its instant, and runs all tasks before the next one."""
        end = self._now + length
        await run_until_idle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now = max(self._now, self._sleepers[0][0])
            self._wake()
            await run_until_idle()
        self._now = end
        await run_until_idle()

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, waiter = heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)


async def run_until_idle(turns: int = 10_000) -> None:
    """Runs all tasks that are ready, and those that they make ready, until all wait, or for `turns` turns."""
    ready = getattr(asyncio.get_running_loop(), "_ready")  # noqa: B009 - asyncio has no public name for it
    for _ in range(turns):
        await asyncio.sleep(0)
        if not ready:
            return


class FakeStore:
    """Implements `ports.Store` in memory. It may be opened again. Tests make it wait and fail."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.revision = 0
        self.is_shared = True
        """False: this registry is the only writer."""
        self.is_unavailable = False
        """Makes commits and confirmations raise `StoreUnavailable`."""
        self.error: Exception | None = None
        """The error of every commit and confirmation."""
        self.next_errors: list[Exception] = []
        """The errors of the next commits. The last one is raised first."""
        self.gate = asyncio.Event()
        """Commits wait while it is not set."""
        self.gate.set()
        self.turn = asyncio.Event()
        """`wait_for_turn` waits while it is not set."""
        self.turn.set()
        self.delayed_batches: list[Batch] | None = None
        """Committed batches that the stream has not delivered yet. None: the stream delivers at once."""
        self.age_seconds = 0.0
        """The result of `age`."""
        self.isolated = 0.0
        """The result of `isolated_seconds`."""
        self.trouble = ""
        self.commits: list[Sequence[Change]] = []
        self.recorded: list[RecordedChange] = []
        """The history, newest first."""
        self.edit_log = EditLog()
        self.stream: asyncio.Queue[FullState | Batch | None] = asyncio.Queue()
        """The next items of `watch`. None ends it."""
        self._listings: dict[Key, tuple[int, Listing]] = {}
        self._removal_revisions: dict[str, int] = {}

    @property
    def changes(self) -> list[Change]:
        """All changes committed with `commit`, in order."""
        return [change for commit in self.commits for change in commit]

    def join(self, name: str) -> SingleNode:
        return SingleNode(name)

    def condition(self) -> Mapping[str, str]:
        return {"trouble": self.trouble}

    async def open(self) -> None:
        self.stream = asyncio.Queue()
        listings, removals = list(self._listings.values()), dict(self._removal_revisions)
        self.stream.put_nowait(FullState(self.epoch, self.revision, listings, removal_revisions=removals))

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        await self.gate.wait()
        if self.next_errors:
            raise self.next_errors.pop()
        await self.confirm(base_revision)
        self.commits.append(changes)
        return self._apply(changes, edits)

    async def wait_for_turn(self) -> None:
        await self.turn.wait()

    async def confirm(self, base_revision: int) -> None:
        if self.is_unavailable:
            raise StoreUnavailable("the store is away")
        if self.error is not None:
            raise self.error
        if base_revision != self.revision:
            raise StoreConflict(f"{base_revision} is not {self.revision}")

    def commit_elsewhere(self, *changes: Change) -> None:
        """Commits changes as another node."""
        self._apply(changes, ())

    def replace_history(self, state: FullState) -> None:
        """Begins another history with this state."""
        self.epoch, self.revision = state.epoch, state.revision
        self._listings = {listing.key: (revision, listing) for revision, listing in state.listings}
        self._removal_revisions = dict(state.removal_revisions)
        self.stream.put_nowait(state)

    def release_delayed(self) -> None:
        """Delivers the delayed batches, and later ones at once."""
        delayed, self.delayed_batches = self.delayed_batches, None
        for batch in delayed or ():
            self.stream.put_nowait(batch)

    def _apply(self, changes: Sequence[Change], edits: Sequence[Edit]) -> int:
        self.revision += 1
        for change in changes:
            self._listings.pop(change.key, None)
            if change.forgets_service:
                self._removal_revisions.pop(change.key.service, None)
            elif change.listing is None:
                self._removal_revisions[change.key.service] = self.revision
            if change.listing is not None:
                self._listings[change.key] = (self.revision, change.listing)
            status = change.listing.status.value if change.listing is not None else ""
            self.recorded.insert(0, RecordedChange(self.revision, change.key, status, change.provenance))
        self.edit_log.add(self.revision, edit_records(edits))
        batch = Batch(self.revision, changes, edits)
        if self.delayed_batches is None:
            self.stream.put_nowait(batch)
        else:
            self.delayed_batches.append(batch)
        return self.revision

    async def watch(self) -> AsyncIterator[FullState | Batch]:
        while (event := await self.stream.get()) is not None:
            yield event

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        found = [
            recorded
            for recorded in self.recorded
            if service in (None, recorded.key.service) and id in (None, recorded.key.id)
        ]
        return found[:limit]

    async def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> Sequence[RecordedEdit]:
        return self.edit_log.newest(kinds, name, limit)

    def age(self) -> float:
        return self.age_seconds

    def isolated_seconds(self) -> float:
        return self.isolated

    async def close(self) -> None:
        pass


class FakeSharding:
    """Implements `ports.Sharding`: keeps the services that the test sets. No node keeps the others."""

    id = "n1"

    def __init__(self, *services: str) -> None:
        self.kept_shards: Set[int] = frozenset()
        self.set_kept(*services)

    def set_kept(self, *services: str) -> None:
        self.kept_shards = frozenset(map(shard_of, services))

    def advertise(self, url: str) -> None:
        pass

    async def start(self) -> None:
        pass

    def keepers(self, service: str) -> Sequence[Peer]:
        return ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        return ()

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        return ()
