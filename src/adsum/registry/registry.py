"""The registry: decides requests, commits them in batches, and publishes the snapshots.

Requests wait in one bounded queue while a commit is under way. Then they are decided together, each on the result of
those before it, and committed as one batch. A batch is applied to the catalog once. It comes from the store's stream if
other nodes write to the store, too, because then only the stream has all batches in their order. Otherwise it is
applied as soon as it is durable, and the stream only matters after an interruption. A write returns when the snapshot
has reached its revision, so that its caller reads what it wrote. The next commit begins before that caller is answered.

Every answer was decided on the newest revision of the store, including refusals and requests that change nothing. So a
node that lags behind others never answers by an outdated catalog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Final, cast

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, Fact, FullState, RecordedChange
from adsum.core.catalog.decisions import Decision
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.catalog.draft import MAX_CATALOG_BYTES, Draft
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError, StoreConflict, StoreUnavailable
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.outage_log import OutageLog
from adsum.ports import Clock, Observer, Store
from adsum.registry.write_queue import QueuedWrite, Settle, WriteQueue, refuse, settle
from adsum.watches import Watches

MAX_WRITES_PER_BATCH: Final = 1_000
"""Writes that are committed together. Further ones go into the next batch."""
MAX_DECISIONS_PER_TURN: Final = 250
"""Writes that are decided before other tasks run. Further ones of the batch are decided after them."""
CONFLICT_RETRY_TIME: Final = 5.0
"""Seconds for which a batch is decided again each time that other nodes write before it. Then it is refused, and the
clients may retry."""
UNREADY_AFTER: Final = 15.0
"""Seconds without contact to the store, or without being able to write, after which a node is no longer ready: another
node may have a newer catalog, or be able to write."""
PUBLISH_TIMEOUT: Final = 3.0
"""Seconds that the store's stream has to deliver a committed batch. Then the writers get an error, because waiting
longer would delay every other write."""
NOT_PUBLISHED: Final = "written, but not seen yet: the store's stream has not delivered it to this node; try again"
STREAM_BEHIND: Final = "the store has newer revisions, and its stream does not deliver them to this node; try again"
CONTENDED: Final = "other nodes keep writing to the store before this one; try again"

_log = logging.getLogger("adsum.registry")


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
        self._queue = WriteQueue()
        self._waiters: list[asyncio.Future[None]] = []
        """The waits in `next_change`."""
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._outage = OutageLog(
            _log,
            "the store refuses writes, and reads go on: %s",
            "the store accepts writes again",
        )
        self.snapshot: Snapshot = snapshots.EMPTY_SNAPSHOT
        """The newest published snapshot."""
        self.is_ready = False
        """True once the catalog is loaded."""

        self.max_catalog_bytes = max_catalog_bytes
        """Bytes of memory of all registrations. Past it changes that need more memory are refused."""
        self.heartbeat = heartbeat
        self.watches = Watches(clock, observer, heartbeat)

    @property
    def is_refusing_writes(self) -> bool:
        """True if the store refused the latest batch."""
        return self._outage.is_failing

    async def start(self) -> None:
        """Opens the store and returns when the catalog is loaded. Raises `StoreOpenFailed` and `StoreUnavailable`."""
        await self._store.open()
        self._tasks = [
            asyncio.create_task(self._supervise(self._follow()), name="adsum-follow"),
            asyncio.create_task(self._supervise(self._write_batches()), name="adsum-write"),
        ]
        while not self.is_ready and self._failure is None:
            await self.next_change()
        if self._failure is not None:
            raise StoreUnavailable(f"the catalog could not be loaded: {self._failure}") from self._failure

    async def stop(self) -> None:
        """Ends the watches, refuses waiting writes and closes the store. Idempotent."""
        self.watches.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._queue.refuse_all(StoreUnavailable("the registry is stopping"))
        await self._store.close()

    async def wait_until_failed(self) -> BaseException:
        """Returns the error when the registry can't go on, because the store's stream ended for good."""
        while self._failure is None:
            await self.next_change()
        return self._failure

    def age(self) -> float:
        """Returns the seconds since the snapshot was known to be the newest."""
        return self._store.age()

    def isolated_seconds(self) -> float:
        """Returns the seconds for which this node could not write. One of several nodes keeps nothing meanwhile."""
        return self._store.isolated_seconds()

    def unready_reason(self) -> str:
        """Returns why clients should use another node; "" if this node is ready."""
        if not self.is_ready:
            return "the catalog is not loaded yet"
        if self.watches.is_ended:
            return "the node is stopping"
        if self.age() > UNREADY_AFTER:
            return f"the store was last reached {self.age():.0f} s ago; reads go on, and state their age"
        if self.isolated_seconds() > UNREADY_AFTER:
            trouble = self._store.condition().get("trouble", "")
            return f"nothing can be written here for {self.isolated_seconds():.0f} s now: {trouble}"
        return ""

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        """Returns the newest recorded changes, newest first."""
        return await self._store.history(service, id, limit)

    async def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> Sequence[RecordedEdit]:
        """Returns the newest recorded edits of documents of these kinds, newest first."""
        return await self._store.edits(kinds, name, limit)

    async def write(self, decision: Decision | Declaration) -> int:
        """Decides, commits and publishes. Returns the revision at which the snapshot contains the result.

        Raises what the decision raises, `Overloaded` if too many writes wait, and `StoreUnavailable` if nothing was
        written or the write was not published in time. The write of a cancelled caller may still be committed.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def finish(result: int | AdsumError) -> None:
            if done.done():  # The caller was cancelled.
                return
            if isinstance(result, int):
                done.set_result(result)
            else:
                done.set_exception(result)

        self.submit(decision, finish, done.done)
        return await done

    def submit(
        self, decision: Decision | Declaration, settle: Settle, is_abandoned: Callable[[], bool] | None = None
    ) -> None:
        """Queues a write, as `write` does, and returns. `settle` is called once with the result.

        `is_abandoned` returns whether nobody waits for the result any more. Then the write may be dropped. Raises
        `Overloaded` if too many writes wait, and `StoreUnavailable` if the registry is not running; `settle` is not
        called then.
        """
        if self._failure is not None or not self._tasks:
            raise StoreUnavailable("the registry is not running", retry_after=5.0)
        self._queue.put(QueuedWrite(decision, settle, is_abandoned))

    async def wait_for_revision(self, revision: int, timeout: float) -> bool:
        """Waits until the snapshot is at `revision` or later. Returns False after `timeout` seconds."""
        if self.snapshot.revision >= revision:
            return True
        timer = asyncio.create_task(self._clock.sleep(timeout), name="adsum-wait-for-revision")
        timer.add_done_callback(lambda _: self._notify())
        try:
            while self.snapshot.revision < revision and not timer.done():
                await self.next_change()
        finally:
            timer.cancel()
        return self.snapshot.revision >= revision

    async def _write_batches(self) -> None:
        while True:
            await self._queue.wait()
            await self._store.wait_for_turn()
            writes = self._queue.take(MAX_WRITES_PER_BATCH)
            try:
                revision = await self._commit(writes)
            except StoreUnavailable as error:
                refuse(writes, error)
            except Exception as error:
                _log.exception("a batch could not be committed")
                refuse(writes, StoreUnavailable(f"the store failed: {error}"))
            except BaseException:
                refuse(writes, StoreUnavailable("the registry is stopping"))
                raise
            else:
                # If others wait already, their commit begins first: the store works on it meanwhile.
                asyncio.get_running_loop().call_soon(settle, writes, revision)

    async def _commit(self, writes: list[QueuedWrite]) -> int:
        """Decides the writes, commits the batch, and returns its revision when it is published.

        After a conflict it decides again, on the newer snapshot, together with the writes that wait by then. So nodes
        that contend for the store write larger batches.
        """
        deadline, first = self._clock.now() + CONFLICT_RETRY_TIME, self.snapshot
        while True:
            base = self.snapshot
            facts = await self._decide(writes, base)
            try:
                if facts:
                    return await self._publish(facts, base)
                await self._store.confirm(base.revision)
            except StoreConflict as error:
                if self._clock.now() >= deadline:
                    raise self._conflict_error(first, facts) from error
                await self.wait_for_revision(base.revision + 1, timeout=1.0)
                await self._store.wait_for_turn()
                writes.extend(self._queue.take(MAX_WRITES_PER_BATCH - len(writes)))
            else:
                return base.revision

    def _conflict_error(self, first: Snapshot, facts: list[Fact]) -> StoreUnavailable:
        """Returns the error of a batch that had conflicts for too long. `first` is the snapshot that it started on."""
        if self.snapshot is not first:
            return StoreUnavailable(CONTENDED)
        error = StoreUnavailable(STREAM_BEHIND)
        if facts:
            self._outage.failed(error)
        return error

    async def _publish(self, facts: list[Fact], base: Snapshot) -> int:
        """Commits the facts and publishes them. Returns their revision when the snapshot contains them."""
        changes, edits = _split(facts)
        started_at = self._clock.now()
        try:
            batch = Batch(await self._store.commit(changes, base.revision, edits), changes, edits)
            took = self._clock.now() - started_at
            if not self._store.is_shared and _is_at(self.snapshot, base):
                self._apply(batch)
            self._observer.committed(batch, took)
            if not await self.wait_for_revision(batch.revision, PUBLISH_TIMEOUT):
                raise StoreUnavailable(NOT_PUBLISHED)
        except StoreUnavailable as error:
            self._outage.failed(error)
            raise
        self._outage.recovered()
        return batch.revision

    async def _decide(self, writes: list[QueuedWrite], base: Snapshot) -> list[Fact]:
        """Decides the writes, each on the result of those before it. Returns what they change."""
        draft = Draft(base, self.max_catalog_bytes)
        facts: list[Fact] = []
        for number, write in enumerate(writes, 1):
            if write.is_abandoned is None or not write.is_abandoned():
                write.error = None
                try:
                    decided = write.decision(draft)
                    draft.add(decided)
                except AdsumError as error:
                    write.error = error
                else:
                    facts += decided
            if number % MAX_DECISIONS_PER_TURN == 0:
                await asyncio.sleep(0)
        return facts

    async def _follow(self) -> None:
        """Applies the store's stream to the snapshot."""
        async for event in self._store.watch():
            if isinstance(event, Batch):
                if event.revision > self.snapshot.revision:
                    self._apply(event)
            elif self._store.is_shared or not self._is_newer_than(event):
                self._load(event)

    def _is_newer_than(self, state: FullState) -> bool:
        """Returns whether the snapshot is of the same history as a state, and newer."""
        return self.snapshot.epoch == state.epoch and self.snapshot.revision > state.revision

    def _apply(self, batch: Batch) -> None:
        """Publishes the snapshot after a batch."""
        self.snapshot = self.snapshot.apply(batch)
        self._announce({change.key.service for change in batch.changes})

    def _load(self, state: FullState) -> None:
        """Publishes the snapshot of everything that the store holds."""
        consumers = self.watches.consumers
        if self.is_ready and state.epoch != self.snapshot.epoch:
            consumers.reset_revisions()
        self.snapshot = snapshots.load_snapshot(state)
        if not self.is_ready:
            consumers.start()
            if self.snapshot.instance_count:
                consumers.note_restart()
        self.is_ready = True
        self._announce(None)

    def _announce(self, services: set[str] | None) -> None:
        """Wakes those who wait for a change of these services (None: of any)."""
        woken = self.watches.publish(services)
        self._observer.published(self.snapshot.revision, woken)
        self._notify()

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def next_change(self) -> None:
        """Returns after the next publication, and whenever a wait times out or the registry fails: look again."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def _supervise(self, loop: Coroutine[object, None, None]) -> None:
        """Runs one of the loops. When it ends, the registry has failed, and `wait_until_failed` returns."""
        try:
            await loop
            raise StoreUnavailable("the store's stream ended")
        except Exception as error:
            # An error raised on purpose needs no traceback.
            _log.error("the registry can't go on: %s", error, exc_info=not isinstance(error, AdsumError))
            self._failure = error
            self._queue.refuse_all(StoreUnavailable(f"the registry can't go on: {error}"))
            self._notify()


def _is_at(snapshot: Snapshot, base: Snapshot) -> bool:
    """Returns whether a snapshot is still at the revision on which something was decided."""
    return snapshot.epoch == base.epoch and snapshot.revision == base.revision


def _split(facts: list[Fact]) -> tuple[Sequence[Change], Sequence[Edit]]:
    """Returns the changes of the catalog and the edits of documents."""
    edits = [fact for fact in facts if isinstance(fact, Edit)]
    if not edits:
        return cast("list[Change]", facts), ()
    return [fact for fact in facts if isinstance(fact, Change)], edits
