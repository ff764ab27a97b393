"""The store on etcd. Several registry nodes share one etcd: all of them follow it, and any of them may write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from random import Random
from time import monotonic
from typing import Final, TypeVar

from adsum.clock import SystemClock
from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.errors import StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.etcd.address import DEFAULT_STORE_PREFIX, EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdRefused, EtcdUnreachable, RevisionCompacted
from adsum.etcd.tls_hint import TlsHint, tls_hint
from adsum.etcd.values import RangeResult, prefix_end
from adsum.ports import Clock
from adsum.stores.batch_feed import BatchFeed
from adsum.stores.edit_log import MAX_EDITS_ON_EVENT_LOOP
from adsum.stores.etcd.batch_writer import BatchWriter, conflict, decode_head_while_running
from adsum.stores.etcd.catalog_decoder import CatalogDecoder, CatalogPosition
from adsum.stores.etcd.catalog_follower import CatalogFollower
from adsum.stores.etcd.edit_history import EditHistory
from adsum.stores.etcd.health_probe import EtcdHealthProbe
from adsum.stores.etcd.layout import Head, Layout
from adsum.stores.etcd.membership import EtcdMembership
from adsum.stores.etcd.write_turns import WriteTurns

OPEN_TIMEOUT: Final = 10.0
"""Seconds within which etcd must answer when a node starts. Then the node ends with an error."""
CATCH_UP_TIMEOUT: Final = 1.0
"""Seconds that a commit waits until this node has read the revision that the commit was decided on."""
CONFLICTS_BEFORE_REQUEST: Final = 2
"""Conflicts in a row after which a node requests a turn."""
MAX_TURN_WAIT: Final = 0.5
"""Seconds that a node leaves the store to others. Then it writes in any case."""
LOG_PAGE_SIZE: Final = 200
"""Entries of the log that are read at a time."""
RETRY_PAUSE: Final = 0.5
"""Seconds between two attempts to reach etcd when a node starts."""
RELOAD_PAUSE: Final = 1.0
"""Seconds between two attempts to read the whole catalog."""

T = TypeVar("T")

_log = logging.getLogger("adsum.store")


class EtcdStore:
    """Implements `ports.Store` over etcd."""

    is_shared: Final = True

    def __init__(self, address: EtcdAddress, clock: Clock | None = None, rng: Random | None = None) -> None:
        self._clock = clock or SystemClock()
        self._rng = rng or Random()
        self.address = address.with_default_prefix(DEFAULT_STORE_PREFIX)
        self._layout = Layout(self.address.prefix.encode())
        self._decoder = CatalogDecoder(self._layout)
        self._writer = BatchWriter(self._layout)
        self._edits = EditHistory(self._layout)
        self._turns = WriteTurns()
        self._conflicts = 0
        """The commits that other nodes came before, since the last one that succeeded."""
        self._feed = BatchFeed(self._full_state)
        self._was_read = False
        self._write_lock = asyncio.Lock()
        self._etcd: EtcdClient | None = None
        self._follower: CatalogFollower | None = None
        self._membership: EtcdMembership | None = None
        self._health_probe: EtcdHealthProbe | None = None

    def join(self, name: str) -> EtcdMembership:
        self._membership = EtcdMembership(self._layout.prefix, name, self._clock, self._rng)
        self._membership.on_turn_requested = self._on_turn_requested
        return self._membership

    def _on_turn_requested(self, node: str) -> None:
        self._turns.note_request(node, monotonic())

    @classmethod
    def from_url(cls, url: str) -> EtcdStore:
        """Returns the store of `etcd://[USER[:PASSWORD]@]HOST[:PORT],…[?prefix=/adsum&ca=…&cert=…&key=…&password-file=…]`.

        Raises `Invalid`.
        """
        return cls(EtcdAddress.parse(url, "store"))

    async def open(self) -> None:
        self._etcd = EtcdClient(self.address, self._rng)
        self._health_probe = EtcdHealthProbe(self._etcd, self._layout, self._clock)
        self._follower = CatalogFollower(
            self._etcd, self._layout, self._clock, self._rng, self._on_batch, self._on_resync
        )
        try:
            await self._load(self._etcd, self._follower)
        except BaseException:
            await self.close()
            raise
        self._follower.start()
        self._health_probe.start()
        if self._membership is not None:
            self._membership.attach(self._etcd)

    async def _load(self, etcd: EtcdClient, follower: CatalogFollower) -> None:
        """Reads the position of the catalog and the log, and tries again while etcd does not answer.

        Raises `StoreOpenFailed` for what does not change by waiting, and `StoreUnavailable` after `OPEN_TIMEOUT`.
        """
        hint: TlsHint | None = None
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                while True:
                    try:
                        await follower.load_position()
                        await self._writer.load_log(etcd)
                    except EtcdUnreachable as error:
                        hint = tls_hint(self.address, str(error))
                        if hint is not None and hint.is_certain:
                            raise EtcdRefused(hint.text) from None
                        _log.warning("%s does not answer yet: %s", self.address, error)
                        await self._clock.sleep(RETRY_PAUSE)
                    else:
                        return
        except TimeoutError:
            if hint is not None:
                raise StoreOpenFailed(f"can't use {self.address}: {hint.text}") from None
            raise StoreUnavailable(f"{self.address} does not answer within {OPEN_TIMEOUT:g} s") from None
        except EtcdRefused as error:
            raise StoreOpenFailed(f"can't use {self.address}: {error}") from None

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        try:
            revision = await self._commit(changes, base_revision, edits)
        except StoreConflict:
            self._conflicts += 1
            if self._conflicts >= CONFLICTS_BEFORE_REQUEST and self._membership is not None:
                await self._membership.request_turn()
            raise
        self._conflicts = 0
        return revision

    async def _commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit]) -> int:
        arguments = (changes, edits, base_revision)
        many = len(edits) > MAX_EDITS_ON_EVENT_LOOP
        parts = await asyncio.to_thread(self._layout.parts, *arguments) if many else self._layout.parts(*arguments)
        async with self._write_lock:
            follower, etcd = self._open_follower, self._open_etcd
            position = await self._position_at(base_revision, follower)

            def note_head(head: Head) -> None:
                if head.parts == 1 and not edits:
                    follower.own_batches.add(head.batch, changes)

            if not self._writer.log_retention.is_loaded:
                await _available(self._writer.load_log(etcd))
            for number, part in enumerate(parts, 1):
                try:
                    position = await self._writer.write_part(
                        etcd, self._membership, part, position, number, len(parts), note_head
                    )
                    follower.advance(position)
                except (StoreConflict, StoreUnavailable) as error:
                    if number == 1:
                        raise
                    raise StoreUnavailable(f"only {number - 1} of {len(parts)} parts were written: {error}") from error
            if edits:
                await self._edits.trim_after_write(len(edits), etcd)
            await self._writer.trim_log(etcd)
        self._turns.note_batch(position.head.writer, position.revision, monotonic())
        return position.revision

    async def wait_for_turn(self) -> None:
        membership, follower = self._membership, self._follower
        if membership is None or follower is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_TURN_WAIT):
                while (delay := self._turns.delay(membership.id, monotonic())) > 0:
                    await follower.wait_for_batch(delay)

    async def confirm(self, base_revision: int) -> None:
        position = await self._position_at(base_revision, self._open_follower)
        head = await _available(self._open_etcd.get(self._layout.head))
        if head is not None:
            decode_head_while_running(head)
        revision = head.revision if head is not None else 0
        if revision != position.head_revision:
            raise conflict(base_revision, revision)

    async def _position_at(self, base_revision: int, follower: CatalogFollower) -> CatalogPosition:
        """Returns the position of the catalog if it is at the revision of a decision. Raises `StoreConflict`."""
        await follower.wait_for_revision(base_revision, CATCH_UP_TIMEOUT)
        position = follower.position
        if position is None or position.revision != base_revision:
            revision = position.revision if position is not None else 0
            raise StoreConflict(f"decided on revision {base_revision}, but the store is at {revision}")
        return position

    def watch(self) -> AsyncIterator[FullState | Batch]:
        return self._feed.watch()

    async def _full_state(self) -> FullState:
        """Reads the whole catalog. Raises `StoreUnavailable` if the very first read fails.

        Later reads are tried again until they succeed: a follower has a state already, and must not end because etcd
        is away.
        """
        while True:
            try:
                state = await self._decoder.full_state(self._open_etcd.pages(self._layout.catalog))
            except EtcdError as error:
                if not self._was_read and not isinstance(error, RevisionCompacted):
                    raise StoreUnavailable(str(error)) from None
                _log.warning("the catalog can't be read anew yet: %s", error)
                await self._clock.sleep(RELOAD_PAUSE)
            else:
                self._was_read = True
                self._writer.departed_services.load(state.removal_revisions)
                return state

    def _on_batch(self, batch: Batch, heads: Sequence[Head]) -> None:
        self._writer.follow(batch, heads)
        if heads:
            self._turns.note_batch(heads[-1].writer, batch.revision, monotonic())
        self._feed.publish(batch)

    def _on_resync(self) -> None:
        self._turns = WriteTurns()  # The revisions may be those of another history.
        self._writer.log_retention.is_loaded = False
        self._feed.resync()

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        start = self._layout.log
        if service is not None and self._writer.log_retention.is_loaded:
            start = self._writer.log_retention.oldest(service) or prefix_end(start)
        matching: list[RecordedChange] = []
        async with aclosing(self._decoder.newest_changes(self._log_from(start))) as newest:
            while len(matching) < limit:
                change = await anext(newest, None)
                if change is None:
                    break
                if service in (None, change.key.service) and id in (None, change.key.id):
                    matching.append(change)
        return matching

    async def _log_from(self, start: bytes) -> AsyncIterator[RangeResult]:
        """Yields the entries of the log from a key on, newest first. Raises `StoreUnavailable`."""
        etcd, end = self._open_etcd, prefix_end(self._layout.log)
        while start < end:
            page = await _available(etcd.range(start, end, limit=LOG_PAGE_SIZE, descending=True))
            yield page
            if not page.more:
                break
            end = page.key_values[-1].key

    async def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> Sequence[RecordedEdit]:
        return await _available(self._edits.newest(self._open_etcd, kinds, name, limit))

    def age(self) -> float:
        return self._follower.age() if self._follower is not None else 0.0

    def isolated_seconds(self) -> float:
        no_session = self._membership.seconds_without_session() if self._membership is not None else 0.0
        return max(no_session, self._health_probe.seconds_refused() if self._health_probe is not None else 0.0)

    def condition(self) -> Mapping[str, str]:
        sources = (self._follower, self._membership, self._health_probe)
        troubles = (source.trouble for source in sources if source is not None)
        condition = dict(self._health_probe.condition()) if self._health_probe is not None else {}
        if self._membership is not None:
            condition |= self._membership.condition()
        trouble = next(filter(None, troubles), "")
        return {**condition, "trouble": trouble} if trouble else condition

    async def close(self) -> None:
        if self._membership is not None:
            await self._membership.close()
        health_probe, self._health_probe = self._health_probe, None
        if health_probe is not None:
            await health_probe.close()
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()
        async with self._write_lock:  # A write in progress takes a bounded time, and gets its answer.
            etcd, self._etcd = self._etcd, None
        if etcd is not None:
            await etcd.close()

    @property
    def _open_etcd(self) -> EtcdClient:
        if self._etcd is None:
            raise StoreUnavailable("the store is closed")
        return self._etcd

    @property
    def _open_follower(self) -> CatalogFollower:
        if self._follower is None:
            raise StoreUnavailable("the store is closed")
        return self._follower


async def _available(answer: Awaitable[T]) -> T:
    """Returns the answer of etcd. Raises `StoreUnavailable`."""
    try:
        return await answer
    except EtcdError as error:
        raise StoreUnavailable(str(error)) from None
