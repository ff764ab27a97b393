"""Follows the catalog in etcd for ever: over lost connections, compaction, and an etcd that was restored or wiped."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import aclosing
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
from adsum.ports import Clock
from adsum.stores.etcd.catalog_decoder import CatalogDecoder, CatalogPosition, decode_head
from adsum.stores.etcd.layout import Head, Layout

BATCH_PARTS_TIMEOUT: Final = 2.0
"""Seconds that the rest of a batch in parts may take; then its writer is taken for dead, and the parts are shown."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Bounds of the pause before reading everything anew, in seconds."""

_log = logging.getLogger("adsum.store")


class CatalogFollower:
    """What is known of the catalog in etcd.

    `told` hears every batch with the heads of its parts, `on_resync` is called when some were missed.
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
        self._reading = CatalogDecoder(layout)
        self._clock = clock
        self._rng = rng
        self._told = on_batch
        self._start_over = on_resync
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._parts: list[RevisionEvents] = []
        self._parts_since = 0.0
        self._fresh_at: float | None = None
        self._doubtful = False
        self._since = 1
        """The revision from which on nothing was told yet."""
        self.position: CatalogPosition | None = None
        """How far the catalog is; None before it was read."""
        self.trouble = ""
        """Why the watch does not go on; "" while it does."""

    def age(self) -> float:
        """Seconds since etcd said that nothing is newer than what was told."""
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
        """Read where the catalog is; it is founded if there is none. Raises `EtcdError` and `StoreOpenFailed`."""
        standing = await self._founded()
        self._settle(standing)
        self._since = standing.revision + 1
        self._fresh_at = self._clock.now()

    def advance(self, position: CatalogPosition) -> None:
        """We wrote a batch ourselves: the next one is decided on it, though the watch may not have told it yet."""
        if self.position is None or position.revision > self.position.revision:
            self._settle(position)

    async def wait_for_revision(self, revision: int, timeout: float) -> bool:
        """Wait until the catalog is known to be at `revision` or later; False after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.position is None or self.position.revision < revision:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _settle(self, standing: CatalogPosition) -> None:
        self.position = standing
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _founded(self) -> CatalogPosition:
        """Where the catalog is now. Of several nodes that found it at once, one succeeds."""
        while True:
            found = await self._etcd.get(self._layout.head)
            if found is not None:
                return CatalogPosition(found.revision, found.revision, decode_head(found))
            said = Head(secrets.token_hex(16), secrets.token_hex(8))
            put = Put(self._layout.head, msgspec.json.encode(said))
            await self._etcd.commit([Unchanged(self._layout.head, 0)], [put])

    async def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                catalog = self._layout.catalog
                async with aclosing(watch(self._etcd, catalog, self._since, self._clock, self._rng)) as told:
                    async for each in told:
                        if isinstance(each, ResyncRequired) or not await self._take(each):
                            break
                        if isinstance(each, RevisionEvents):
                            self._since = each.revision + 1  # From there, if taking the next one fails.
                        backoff.reset()
                await self._anew()
            except (EtcdError, StoreOpenFailed) as error:
                self._note(str(error))
            except Exception as error:
                # Ending here would freeze the catalog in silence.
                _log.exception("the catalog in etcd can't be followed")
                self._note(str(error))
            self._doubtful = True  # By then it may be another history.
            await self._clock.sleep(backoff.next(self._rng))

    async def _take(self, told: RevisionEvents | WatchProgress | WatchInterrupted) -> bool:
        """Take what the watch says; False if what we know is not what was before it. Raises `EtcdError`."""
        if isinstance(told, WatchInterrupted):
            self._doubtful = True
            self._note(told.reason)
            return True
        if self._doubtful:
            if not await self._is_the_same_history():
                return False
            self._doubtful = False
        if isinstance(told, WatchProgress):
            self._give_up_on_parts()
            self._fresh_at = self._clock.now()
            self._note("")
            return True
        if any(event.key == self._layout.head and event.key_value is None for event in told.events):
            return False  # Somebody deleted it, and maybe everything: the catalog is founded anew.
        self._see(told)
        return True

    def _see(self, seen: RevisionEvents) -> None:
        said, at = self._head_of(seen)
        self._parts.append(seen)
        if said is not None and said.part < said.parts:
            if said.part == 1:
                self._parts_since = self._clock.now()
            return
        self._tell(said, at)

    def _give_up_on_parts(self) -> None:
        if self._parts and self._clock.now() - self._parts_since > BATCH_PARTS_TIMEOUT:
            _log.warning("a batch was cut off after %d of its parts; its writer died", len(self._parts))
            self._tell(*self._head_of(self._parts[-1]))

    def _tell(self, said: Head | None, at: int) -> None:
        parts, self._parts = self._parts, []
        batch = self._reading.batch(parts)
        before = self.position
        if said is not None:
            standing = CatalogPosition(batch.revision, at, said)
        elif before is not None:
            standing = CatalogPosition(batch.revision, before.head_revision, before.head)
        else:
            return
        if before is None or batch.revision > before.revision:
            self._settle(standing)
        heads = (self._head_of(part)[0] for part in parts)
        self._told(batch, [each for each in heads if each is not None])

    def _head_of(self, seen: RevisionEvents) -> tuple[Head | None, int]:
        for event in seen.events:
            if event.key == self._layout.head and event.key_value is not None:
                return decode_head(event.key_value), event.key_value.revision
        return None, 0

    async def _is_the_same_history(self) -> bool:
        """Whether etcd still knows the last batch that we know. One that was restored from a backup, or is new, does
        not. Raises `EtcdError`.
        """
        known = self.position
        if known is None:
            return False
        try:
            found = (await self._etcd.range(self._layout.head, revision=known.revision)).key_values
        except RevisionCompacted:
            # It can't be asked any more; the epoch at least is the same if the head now has it.
            now = await self._etcd.get(self._layout.head)
            return (
                now is not None and now.revision >= known.head_revision and decode_head(now).epoch == known.head.epoch
            )
        except EtcdError as error:
            if "future revision" in str(error):
                return False
            raise
        return bool(found) and decode_head(found[0]).batch == known.head.batch

    async def _anew(self) -> None:
        """What we knew can't be followed on: have everything shown anew, in a new epoch if it is another history.

        Raises `EtcdError`.
        """
        known = self.position
        same = known is not None and await self._is_the_same_history()
        standing, since = await self._located()
        while not same and known is not None and standing.head.epoch == known.head.epoch:
            await self._new_epoch(standing)
            standing, since = await self._located()
        _log.warning(
            "the catalog in etcd is read anew%s", "" if same else ", as another history: it was not as we left it"
        )
        self._parts.clear()
        self._since = since
        self._settle(standing)
        self._start_over()

    async def _located(self) -> tuple[CatalogPosition, int]:
        """Where the catalog is now, with what was written past us, and the revision to watch from: that after etcd's
        own, for etcd may have compacted all since the catalog changed. Raises `EtcdError`.
        """
        while True:
            at = newest = 0
            async for page in self._etcd.pages(self._layout.catalog, keys_only=True):
                at = at or page.header.revision
                newest = max(newest, *(each.revision for each in page.key_values), 0)
            top = (await self._etcd.range(self._layout.head, revision=at)).key_values
            if top:
                return CatalogPosition(newest, top[0].revision, decode_head(top[0])), at + 1
            await self._founded()

    async def _new_epoch(self, standing: CatalogPosition) -> None:
        """Revisions of before must not be compared with those of now. Whoever notices first says so to all."""
        said = Head(secrets.token_hex(16), secrets.token_hex(8))
        put = Put(self._layout.head, msgspec.json.encode(said))
        await self._etcd.commit([Unchanged(self._layout.head, standing.head_revision)], [put])

    def _note(self, trouble: str) -> None:
        """Tell the operator when following breaks off, and when it goes on."""
        if trouble and not self.trouble:
            _log.error("etcd can't be followed, and reads go on with their age: %s", trouble)
        elif self.trouble and not trouble:
            _log.warning("etcd is followed again")
        self.trouble = trouble
