"""Follows the catalog in etcd. It continues after lost connections, compaction, and a restore or wipe of etcd."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from random import Random
from typing import Final

import msgspec

from adsum.core.backoff import Backoff
from adsum.core.catalog.changes import Batch
from adsum.core.errors import StoreOpenFailed
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, RevisionCompacted
from adsum.etcd.values import Put, Unchanged
from adsum.etcd.watch import ResyncRequired, RevisionEvents, WatchInterrupted, WatchProgress, watch
from adsum.outage_log import OutageLog
from adsum.ports import Clock
from adsum.stores.etcd.catalog_decoder import CatalogDecoder, CatalogPosition, decode_head
from adsum.stores.etcd.layout import Head, Layout
from adsum.stores.etcd.own_batches import OwnBatches

BATCH_PARTS_TIMEOUT: Final = 2.0
"""Seconds that the later parts of a batch may take. Then its writer counts as dead, and the parts are published."""
MIN_RESYNC_PAUSE, MAX_RESYNC_PAUSE = 0.1, 2.0
"""Seconds before the catalog is read anew. The pause grows from the first bound to the second."""

_log = logging.getLogger("adsum.store")


class CatalogFollower:
    """Follows the batches that any node writes.

    `on_batch` is called with every batch and the heads of its parts, `on_resync` when batches were missed.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        layout: Layout,
        clock: Clock,
        rng: Random,
        on_batch: Callable[[Batch, Sequence[Head]], None],
        on_resync: Callable[[], None],
    ) -> None:
        self._etcd = etcd
        self._layout = layout
        self._decoder = CatalogDecoder(layout)
        self._clock = clock
        self._rng = rng
        self._on_batch = on_batch
        self._on_resync = on_resync
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._parts: list[RevisionEvents] = []
        """The parts of a batch whose last part is awaited."""
        self._parts_since = 0.0
        self._fresh_at: float | None = None
        self._must_verify_history = False
        self._next_revision = 1
        """The revision from which on the watch continues."""
        self.own_batches = OwnBatches()
        """The batches of this node that the watch has not delivered yet."""
        self.position: CatalogPosition | None = None
        """The position of the catalog as far as it is known; None before it was read."""
        self.trouble = ""
        """The reason why the watch is interrupted; "" while it runs."""
        self._outage = OutageLog(
            _log,
            "etcd can't be followed; reads continue and state their age: %s",
            "etcd is followed again",
        )

    def age(self) -> float:
        """Returns the seconds since etcd confirmed that nothing is newer than the batches so far."""
        return 0.0 if self._fresh_at is None else self._clock.now() - self._fresh_at

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="adsum-etcd-follow")

    async def close(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def load_position(self) -> None:
        """Reads the position of the catalog, and creates the catalog if there is none.

        Raises `EtcdError` and `StoreOpenFailed`.
        """
        position = await self._load_or_create()
        self._set_position(position)
        self._next_revision = position.revision + 1
        self._fresh_at = self._clock.now()

    def advance(self, position: CatalogPosition) -> None:
        """Moves to the position of a batch that this node wrote and that the watch may not have delivered yet.

        The next batch is decided on this position.
        """
        if self.position is None or position.revision > self.position.revision:
            self._set_position(position)

    async def wait_for_revision(self, revision: int, timeout: float) -> bool:
        """Waits until the catalog is at `revision` or later. Returns False after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.position is None or self.position.revision < revision:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def wait_for_batch(self, timeout: float) -> None:
        """Returns when the catalog moves, or after `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._moved.wait()

    def _set_position(self, position: CatalogPosition) -> None:
        self.position = position
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _load_or_create(self) -> CatalogPosition:
        """Returns the position of the catalog. If several nodes create it at once, one of them succeeds."""
        while True:
            key_value = await self._etcd.get(self._layout.head)
            if key_value is not None:
                return CatalogPosition(key_value.revision, key_value.revision, decode_head(key_value))
            put = Put(self._layout.head, msgspec.json.encode(_new_head()))
            await self._etcd.commit([Unchanged(self._layout.head, 0)], [put])

    async def _run(self) -> None:
        backoff = Backoff(MIN_RESYNC_PAUSE, MAX_RESYNC_PAUSE)
        while True:
            try:
                catalog = self._layout.catalog
                async with aclosing(watch(self._etcd, catalog, self._next_revision, self._clock, self._rng)) as events:
                    async for event in events:
                        if isinstance(event, ResyncRequired) or not await self._handle(event):
                            break
                        if isinstance(event, RevisionEvents):
                            # If the next event can't be handled, the watch continues from here.
                            self._next_revision = event.revision + 1
                        backoff.reset()
                await self._resync()
            except (EtcdError, StoreOpenFailed) as error:
                self._set_trouble(str(error))
            except Exception as error:
                # If this task ended, the catalog would silently stay as it is.
                _log.exception("the catalog in etcd can't be followed")
                self._set_trouble(str(error))
            self._must_verify_history = True  # etcd may be wiped or restored meanwhile.
            await self._clock.sleep(backoff.next(self._rng))

    async def _handle(self, event: RevisionEvents | WatchProgress | WatchInterrupted) -> bool:
        """Handles an event of the watch. Returns False if the catalog must be read anew. Raises `EtcdError`."""
        if isinstance(event, WatchInterrupted):
            self._must_verify_history = True
            self._set_trouble(event.reason)
            return True
        if self._must_verify_history:
            if not await self._is_the_same_history():
                return False
            self._must_verify_history = False
        if isinstance(event, WatchProgress):
            self._publish_abandoned_parts()
            self._fresh_at = self._clock.now()
            self._set_trouble("")
            return True
        if any(change.key == self._layout.head and change.key_value is None for change in event.events):
            return False  # The head was deleted, and perhaps the rest of the catalog. Then it must be created anew.
        self._add_part(event)
        return True

    def _add_part(self, part: RevisionEvents) -> None:
        head, revision = self._find_head(part)
        self._parts.append(part)
        if head is not None and head.part < head.parts:
            if head.part == 1:
                self._parts_since = self._clock.now()
            return
        self._publish_batch(head, revision)

    def _publish_abandoned_parts(self) -> None:
        if self._parts and self._clock.now() - self._parts_since > BATCH_PARTS_TIMEOUT:
            _log.warning("only %d parts of a batch were written: its writer died", len(self._parts))
            self._publish_batch(*self._find_head(self._parts[-1]))

    def _publish_batch(self, head: Head | None, head_revision: int) -> None:
        parts, self._parts = self._parts, []
        own = self.own_batches.take(head, parts[-1].revision) if head is not None and len(parts) == 1 else None
        batch = own if own is not None else self._decoder.batch(parts)
        before = self.position
        if head is not None:
            position = CatalogPosition(batch.revision, head_revision, head)
        elif before is not None:
            position = CatalogPosition(batch.revision, before.head_revision, before.head)
        else:
            return
        if before is None or batch.revision > before.revision:
            self._set_position(position)
        heads = (self._find_head(part)[0] for part in parts)
        self._on_batch(batch, [head for head in heads if head is not None])

    def _find_head(self, part: RevisionEvents) -> tuple[Head | None, int]:
        """Returns the head that a part wrote and its revision; None and 0 if another program wrote the part."""
        for event in part.events:
            if event.key == self._layout.head and event.key_value is not None:
                return decode_head(event.key_value), event.key_value.revision
        return None, 0

    async def _is_the_same_history(self) -> bool:
        """Returns whether etcd still holds the last batch that this node knows. Raises `EtcdError`.

        An etcd that was wiped or restored from a backup does not.
        """
        position = self.position
        if position is None:
            return False
        try:
            heads = (await self._etcd.range(self._layout.head, revision=position.revision)).key_values
        except RevisionCompacted:
            # The batch can't be read any more. The current head must at least have the same epoch.
            head = await self._etcd.get(self._layout.head)
            if head is None or head.revision < position.head_revision:
                return False
            return decode_head(head).epoch == position.head.epoch
        except EtcdError as error:
            if "future revision" in str(error):
                return False
            raise
        return bool(heads) and decode_head(heads[0]).batch == position.head.batch

    async def _resync(self) -> None:
        """Moves to the current position after batches were missed, in a new epoch if etcd has another history.

        Raises `EtcdError`.
        """
        before = self.position
        same = before is not None and await self._is_the_same_history()
        position, next_revision = await self._locate()
        while not same and before is not None and position.head.epoch == before.head.epoch:
            await self._write_new_epoch(position)
            position, next_revision = await self._locate()
        _log.warning(
            "the catalog in etcd is read anew%s", "" if same else ": etcd has another history, as after a restore"
        )
        self._parts.clear()
        self._next_revision = next_revision
        self._set_position(position)
        self._on_resync()

    async def _locate(self) -> tuple[CatalogPosition, int]:
        """Returns the current position of the catalog and the revision to watch from. Raises `EtcdError`.

        The position includes keys that other programs wrote. The watch starts after etcd's own revision, since etcd may
        have compacted everything from the last change of the catalog on.
        """
        while True:
            at = newest = 0
            async for page in self._etcd.pages(self._layout.catalog, keys_only=True):
                at = at or page.header.revision
                newest = max(newest, *(key_value.revision for key_value in page.key_values), 0)
            heads = (await self._etcd.range(self._layout.head, revision=at)).key_values
            if heads:
                return CatalogPosition(newest, heads[0].revision, decode_head(heads[0])), at + 1
            await self._load_or_create()

    async def _write_new_epoch(self, position: CatalogPosition) -> None:
        """Writes a new epoch for all nodes, since revisions of two histories must not be compared.

        The first node that notices the other history succeeds.
        """
        put = Put(self._layout.head, msgspec.json.encode(_new_head()))
        await self._etcd.commit([Unchanged(self._layout.head, position.head_revision)], [put])

    def _set_trouble(self, trouble: str) -> None:
        """Logs when the watch is interrupted and when it continues."""
        self.trouble = trouble
        if trouble:
            self._outage.failed(trouble)
        else:
            self._outage.recovered()


def _new_head() -> Head:
    """Returns the head of a new epoch."""
    return Head(secrets.token_hex(16), secrets.token_hex(8))
