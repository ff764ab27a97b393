"""The one writer: request → changes → store → snapshot → watchers.

Requests wait in one bounded queue while a commit is under way and are then decided together, each seeing those before
it, and committed as one batch. The catalog moves only by what the store's stream says, our own writes included, and a
write returns when the snapshot has reached it: you read what you wrote. Whatever is answered was decided on the newest
there was, refusals and what changes nothing too: a node that lags behind others tells nobody what is no longer so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, Fact, FullState, RecordedChange
from adsum.core.catalog.decisions import Decision
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.catalog.draft import MAX_CATALOG_BYTES, Draft
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError, Overloaded, StoreConflict, StoreUnavailable
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.ports import Clock, Observer, Store
from adsum.watches import Watches

MAX_WAITING_WRITES: Final = 20_000
"""How many writes wait for the store; past it a new one is refused with `Overloaded`."""
MAX_WRITES_PER_BATCH: Final = 1_000
"""How many writes are committed together; the rest goes into the next batch."""
CONFLICT_RETRY_TIME: Final = 5.0
"""Seconds for which a batch is decided again whenever other nodes moved the store under it; then it is refused, to be
tried again."""
UNREADY_AFTER: Final = 15.0
"""Seconds without news of the store, or without being let write and keep, after which a node is not ready any more:
another one may know more, or be let.
"""
PUBLISH_TIMEOUT: Final = 3.0
"""Seconds within which the store's stream tells what the store took; then its writers are told that it is not seen yet.
Waiting longer would hold up every other write, and their answers."""
NOT_PUBLISHED: Final = "written, but not seen yet: the store does not tell this node what is new; try again"
STREAM_BEHIND: Final = "the store has moved on, and does not tell this node what is new; try again"
CONTENDED: Final = "other nodes keep moving the store; try again"

_log = logging.getLogger("adsum.registry")


@dataclass(slots=True)
class _Write:
    """A decision on its way, and who waits for its revision or refusal."""

    decision: Decision | Declaration
    done: asyncio.Future[int]
    refusal: AdsumError | None = None

    def settle(self, result: int | AdsumError) -> None:
        """Its caller may have gone away meanwhile."""
        if self.done.done():
            return
        if isinstance(result, int):
            self.done.set_result(result)
        else:
            self.done.set_exception(result)


class Registry:
    """Accepts registrations and publishes the catalog."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        observer: Observer,
        heartbeat: float = DEFAULT_HEARTBEAT,
        *,
        max_catalog_bytes: int = MAX_CATALOG_BYTES,
    ) -> None:
        """`heartbeat`: seconds between two heartbeats of a watch."""
        self._store = store
        self._clock = clock
        self._observer = observer
        self._waiting: deque[_Write] = deque()
        self._work = asyncio.Event()
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self.snapshot: Snapshot = snapshots.EMPTY_SNAPSHOT
        """The newest published snapshot."""
        self.is_ready = False
        """Whether the catalog is loaded."""
        self.is_refusing_writes = False
        """Whether the store refused the latest batch."""
        self.max_catalog_bytes = max_catalog_bytes
        """Bytes of memory that all registrations may take; past it what would make them larger is refused."""
        self.heartbeat = heartbeat
        self.watches = Watches(clock, observer, heartbeat)

    async def start(self) -> None:
        """Open the store and return when the catalog is loaded. Raises `StoreOpenFailed` and `StoreUnavailable`."""
        await self._store.open()
        self._tasks = [
            asyncio.create_task(self._guarded(self._follow()), name="adsum-follow"),
            asyncio.create_task(self._guarded(self._write_batches()), name="adsum-write"),
        ]
        while not self.is_ready and self._failure is None:
            await self._next_move()
        if self._failure is not None:
            raise StoreUnavailable(f"the catalog could not be loaded: {self._failure}") from self._failure

    async def stop(self) -> None:
        """End watches, refuse waiting writes and close the store; idempotent."""
        self.watches.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._refuse(self._take(len(self._waiting)), StoreUnavailable("the registry is stopping"))
        await self._store.close()

    async def wait_until_failed(self) -> BaseException:
        """Return only if the registry can't go on (its store's stream broke for good): the reason."""
        while self._failure is None:
            await self._next_move()
        return self._failure

    def age(self) -> float:
        """Seconds since the snapshot was known to be the newest."""
        return self._store.age()

    def isolated_seconds(self) -> float:
        """Seconds for which this node could not write; one of several keeps nothing either while that lasts."""
        return self._store.isolated_seconds()

    def unready_reason(self) -> str:
        """Why others than this node should be asked; "" if it is as good as any."""
        if not self.is_ready:
            return "the catalog is not loaded yet"
        if self.watches.is_ended:
            return "the node is stopping"
        if self.age() > UNREADY_AFTER:
            return f"the store was reached {self.age():.0f} s ago; reads go on, and say so"
        if self.isolated_seconds() > UNREADY_AFTER:
            trouble = self._store.condition().get("trouble", "")
            return f"nothing can be written here for {self.isolated_seconds():.0f} s now: {trouble}"
        return ""

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        """Why things are as they are: the newest recorded changes, newest first."""
        return await self._store.history(service, id, limit)

    async def edits(self, kind: DocumentKind | None, name: str | None, limit: int) -> Sequence[RecordedEdit]:
        """What became of what operators declared: the newest recorded edits, newest first."""
        return await self._store.edits(kind, name, limit)

    async def write(self, decision: Decision | Declaration) -> int:
        """Have `decision` decided, committed and published; the revision at which the snapshot shows it.

        Raises what the decision raises, `Overloaded` if too many wait, and `StoreUnavailable` if nothing was written,
        or if it can't be shown to have been. The write of a caller that is cancelled may go through nevertheless.
        """
        if len(self._waiting) >= MAX_WAITING_WRITES:
            raise Overloaded("the queue of writes")
        if self._failure is not None or not self._tasks:
            raise StoreUnavailable("the registry is not running", retry_after=5.0)
        write = _Write(decision, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        self._work.set()
        return await write.done

    async def wait_for_revision(self, revision: int, timeout: float) -> bool:
        """Wait until the snapshot is at `revision` or later; False after `timeout` seconds."""
        timer = asyncio.create_task(self._clock.sleep(timeout), name="adsum-reached")
        timer.add_done_callback(lambda _: self._move())
        try:
            while self.snapshot.revision < revision and not timer.done():
                await self._next_move()
        finally:
            timer.cancel()
        return self.snapshot.revision >= revision

    async def _write_batches(self) -> None:
        while True:
            await self._work.wait()
            writes = self._take(MAX_WRITES_PER_BATCH)
            try:
                await self._commit(writes)
            except StoreUnavailable as error:
                self._refuse(writes, error)
            except Exception as error:
                _log.exception("a batch could not be committed")
                self._refuse(writes, StoreUnavailable(f"the store failed: {error}"))
            except BaseException:
                self._refuse(writes, StoreUnavailable("the registry is stopping"))
                raise

    async def _commit(self, writes: list[_Write]) -> None:
        """Decide, commit and wait until published.

        On a moved basis again, on the fresher snapshot and with what waits by now: the more nodes contend, the more
        they write at a time.
        """
        until, first = self._clock.now() + CONFLICT_RETRY_TIME, self.snapshot
        while True:
            basis = self.snapshot
            facts = self._decide(writes, basis)
            revision = basis.revision
            try:
                if facts:
                    revision = await self._written(facts, basis.revision)
                else:
                    await self._store.confirm(basis.revision)
            except StoreConflict as error:
                if self._clock.now() >= until:
                    raise self._given_up(first, facts) from error
                await self.wait_for_revision(basis.revision + 1, timeout=1.0)
                writes.extend(self._take(MAX_WRITES_PER_BATCH - len(writes)))
                continue
            for write in writes:
                write.settle(write.refusal or revision)
            return

    def _given_up(self, first: Snapshot, facts: list[Fact]) -> StoreUnavailable:
        """What to say when a batch that was begun on the snapshot `first` was decided too often."""
        if self.snapshot is not first:
            return StoreUnavailable(CONTENDED)
        untold = StoreUnavailable(STREAM_BEHIND)
        if facts:
            self._note(untold)
        return untold

    async def _written(self, facts: list[Fact], basis: int) -> int:
        """The revision under which they were committed, once it is published."""
        changes, edits = _sorted(facts)
        began = self._clock.now()
        try:
            revision = await self._store.commit(changes, basis, edits)
            self._observer.committed(Batch(revision, changes, edits), self._clock.now() - began)
            if not await self.wait_for_revision(revision, PUBLISH_TIMEOUT):
                raise StoreUnavailable(NOT_PUBLISHED)
        except StoreUnavailable as error:
            self._note(error)
            raise
        self._note(None)
        return revision

    def _note(self, trouble: StoreUnavailable | None) -> None:
        """Tell the operator when the store begins to refuse writes, and when it takes them again."""
        if trouble is not None and not self.is_refusing_writes:
            _log.error("the store refuses writes, and reads go on: %s", trouble)
        elif trouble is None and self.is_refusing_writes:
            _log.warning("the store takes writes again")
        self.is_refusing_writes = trouble is not None

    def _decide(self, writes: list[_Write], basis: Snapshot) -> list[Fact]:
        draft = Draft(basis, self.max_catalog_bytes)
        facts: list[Fact] = []
        for write in writes:
            if write.done.done():
                continue
            write.refusal = None
            try:
                decided = write.decision(draft)
                draft.add(decided)
            except AdsumError as refusal:
                write.refusal = refusal
            else:
                facts += decided
        return facts

    def _take(self, most: int) -> list[_Write]:
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if not self._waiting:
            self._work.clear()
        return taken

    def _refuse(self, writes: list[_Write], error: AdsumError) -> None:
        for write in writes:
            write.settle(error)

    async def _follow(self) -> None:
        """Fold the store's stream into snapshots."""
        async for event in self._store.watch():
            touched: set[str] | None = None
            if isinstance(event, FullState):
                if self.is_ready and event.epoch != self.snapshot.epoch:
                    self.watches.consumers.reset_revisions()
                self.snapshot = snapshots.load_snapshot(event)
                if not self.is_ready:
                    self.watches.consumers.start()
                if not self.is_ready and self.snapshot.instance_count:
                    self.watches.consumers.note_restart()
                self.is_ready = True
            else:
                self.snapshot = self.snapshot.apply(event)
                touched = {change.key.service for change in event.changes}
            woken = self.watches.publish(touched)
            self._observer.published(self.snapshot.revision, woken)
            self._move()

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _next_move(self) -> None:
        await self._moved.wait()

    async def _guarded(self, work: Coroutine[object, None, None]) -> None:
        """Never fail in silence: what ends one of the loops ends the registry, and is told by `failed`."""
        try:
            await work
            raise StoreUnavailable("the store's stream ended")
        except Exception as error:
            # What is no mistake of ours is told in its own words.
            _log.error("the registry can't go on: %s", error, exc_info=not isinstance(error, AdsumError))
            self._failure = error
            self._refuse(self._take(len(self._waiting)), StoreUnavailable(f"the registry can't go on: {error}"))
            self._move()


def _sorted(facts: list[Fact]) -> tuple[list[Change], list[Edit]]:
    """What the catalog is made of, and what was declared beside it."""
    changes = [fact for fact in facts if isinstance(fact, Change)]
    return changes, [fact for fact in facts if isinstance(fact, Edit)] if len(changes) < len(facts) else []
