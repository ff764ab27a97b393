"""The store on etcd. Many registry nodes share one; each follows it, and any may write."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from random import Random
from typing import Final, TypeVar

import msgspec

from adsum.clock import SystemClock
from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.errors import StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.etcd import tls_diagnosis
from adsum.etcd.address import DEFAULT_STORE_PREFIX, EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdRefused, EtcdUnreachable, RevisionCompacted
from adsum.etcd.values import (
    Condition,
    Delete,
    Get,
    KeyValue,
    Put,
    RangeResult,
    TransactionResult,
    Unchanged,
    prefix_end,
)
from adsum.ports import Clock
from adsum.stores.batch_feed import BatchFeed
from adsum.stores.edit_log import MAX_EDITS_ON_EVENT_LOOP
from adsum.stores.etcd.catalog_decoder import CatalogDecoder, CatalogPosition, decode_head
from adsum.stores.etcd.catalog_follower import CatalogFollower
from adsum.stores.etcd.departed_services import DepartedServices
from adsum.stores.etcd.edit_history import EditHistory
from adsum.stores.etcd.health_probe import EtcdHealthProbe
from adsum.stores.etcd.layout import MAX_OPERATIONS_PER_TRANSACTION, BatchPart, Head, Layout, LogEntryRecord
from adsum.stores.etcd.log_retention import LogRetention
from adsum.stores.etcd.membership import EtcdMembership

OPEN_TIMEOUT: Final = 10.0
"""Seconds within which etcd must answer when a node starts; then it ends, saying so."""
CATCH_UP_TIMEOUT: Final = 1.0
"""Seconds that a commit waits for the store to see the revision that it was decided on."""
MAX_WRITE_ATTEMPTS: Final = 2
"""How often a transaction is asked for that gets no answer, and once more where there are several members: each of them
has less time to answer then. Afterwards the write fails."""
NO_SESSION: Final = "this node has no session with etcd; it is being made anew"
LOG_PAGE_SIZE: Final = 200
"""Entries of the log that are read at a time."""

T = TypeVar("T")

_log = logging.getLogger("adsum.store")


class EtcdStore:
    """Keeps batches in etcd. See `ports.Store` for what each method promises."""

    def __init__(self, address: EtcdAddress, clock: Clock | None = None, rng: Random | None = None) -> None:
        self._clock = clock or SystemClock()
        self._rng = rng or Random()
        address = address.with_default_prefix(DEFAULT_STORE_PREFIX)
        self.address = address
        self._layout = Layout(address.prefix.encode())
        self._reading = CatalogDecoder(self._layout)
        self._trail = LogRetention(self._layout)
        self._departures = DepartedServices()
        self._edits = EditHistory(self._layout)
        self._feeds = BatchFeed(self._whole)
        self._read = False
        self._writing = asyncio.Lock()
        self._etcd: EtcdClient | None = None
        self._following: CatalogFollower | None = None
        self._presence: EtcdMembership | None = None
        self._inquiry: EtcdHealthProbe | None = None

    def join(self, name: str) -> EtcdMembership:
        self._presence = EtcdMembership(self._layout.prefix, name, self._clock, self._rng)
        return self._presence

    @classmethod
    def from_url(cls, url: str) -> EtcdStore:
        """`etcd://[user[:password]@]host[:port],…[?prefix=/adsum&ca=…&cert=…&key=…&password-file=…]`."""
        return cls(EtcdAddress.parse(url, "store"))

    async def open(self) -> None:
        self._etcd = EtcdClient(self.address, self._rng)
        self._inquiry = EtcdHealthProbe(self._etcd, self._layout, self._clock)
        self._following = CatalogFollower(
            self._etcd, self._layout, self._clock, self._rng, self._told, self._start_over
        )
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await self._begin(self._following)
        except TimeoutError:
            await self.close()
            raise StoreUnavailable(f"{self.address} does not answer within {OPEN_TIMEOUT:g} s") from None
        except EtcdRefused as error:
            await self.close()
            raise StoreOpenFailed(f"can't use {self.address}: {error}") from None
        except BaseException:
            await self.close()
            raise
        self._following.start()
        self._inquiry.start()
        if self._presence is not None:
            self._presence.attach(self._etcd)

    async def _begin(self, following: CatalogFollower) -> None:
        """Return when etcd answered. Raises `Refused` for what waiting does not mend, and `StoreOpenFailed`."""
        while True:
            wrong = await tls_diagnosis.diagnose_tls(self.address)
            if wrong:
                raise EtcdRefused(wrong)
            try:
                await following.load_position()
                await self._load_trail()
            except EtcdUnreachable as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise EtcdRefused(
                        "no authority that is known here vouches for its certificate: add ca=FILE"
                    ) from None
                _log.warning("%s does not answer yet: %s", self.address, error)
                await self._clock.sleep(0.5)
            else:
                return

    async def _load_trail(self) -> None:
        """Raises `EtcdError`."""
        pages = self._open_etcd.pages(self._layout.log, keys_only=True)
        self._trail.load([each.key async for page in pages for each in page.key_values])

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        made = self._layout.parts
        many = len(edits) > MAX_EDITS_ON_EVENT_LOOP
        parts = (
            await asyncio.to_thread(made, changes, edits, base_revision)
            if many
            else made(changes, edits, base_revision)
        )
        async with self._writing:
            following = self._open_following
            standing = await self._on(base_revision, following)
            if not self._trail.is_loaded:
                await self._asked(self._load_trail())
            for number, part in enumerate(parts, 1):
                try:
                    standing = await self._write(part, standing, number, len(parts))
                    following.advance(standing)
                except (StoreConflict, StoreUnavailable) as error:
                    if number == 1:
                        raise
                    raise StoreUnavailable(f"only {number - 1} of {len(parts)} parts were written: {error}") from error
            if edits:
                await self._edits.trim_after_write(len(edits), self._open_etcd)
            await self._cut_log()
        return standing.revision

    async def confirm(self, base_revision: int) -> None:
        standing = await self._on(base_revision, self._open_following)
        found = await self._asked(self._open_etcd.get(self._layout.head))
        if found is not None:
            _running(found)
        at = found.revision if found is not None else 0
        if at != standing.head_revision:
            raise StoreConflict(f"decided on another revision than {at}, where etcd is by now")

    async def _on(self, basis: int, following: CatalogFollower) -> CatalogPosition:
        """How the store stands at the revision that a batch was decided on. Raises `StoreConflict`."""
        await following.wait_for_revision(basis, CATCH_UP_TIMEOUT)
        standing = following.position
        if standing is None or standing.revision != basis:
            at = standing.revision if standing is not None else 0
            raise StoreConflict(f"decided on revision {basis}, but the store is at {at}")
        return standing

    async def _write(self, part: BatchPart, on: CatalogPosition, number: int, parts: int) -> CatalogPosition:
        """One transaction. Raises `StoreConflict` and `StoreUnavailable`."""
        counts = {service: len(logged) for service, logged in part.log.items()}
        said = Head(
            *(
                on.head.epoch,
                secrets.token_hex(8),
                on.revision,
                sum(counts.values()),
                counts,
                number,
                parts,
                part.deletions,
            )
        )
        then: list[Put | Delete] = [Put(self._layout.head, msgspec.json.encode(said)), *part.operations]
        for service, logged in part.log.items():
            key = self._layout.log_key(said.basis, service, len(logged))
            then.append(Put(key, msgspec.json.encode(LogEntryRecord(logged, number, parts))))
        forgotten = self._departures.excess((*part.departed, *part.forgotten))
        then += (Delete(self._layout.departure_key(service)) for service in forgotten)
        settled = await self._settled(self._conditions(on), then, said.batch)
        self._trail.add(said)
        self._departures.remove((*forgotten, *part.forgotten))
        self._departures.add(part.departed)
        return CatalogPosition(settled, settled, said)

    async def _cut_log(self) -> None:
        """Delete what is beyond the bounds of history now and then. What can't be deleted is found again later."""
        cut = self._trail.trim()
        try:
            for start in range(0, len(cut), MAX_OPERATIONS_PER_TRANSACTION):
                await self._open_etcd.commit(
                    [], [Delete(key) for key in cut[start : start + MAX_OPERATIONS_PER_TRANSACTION]]
                )
        except EtcdError as error:
            self._trail.is_loaded = False
            _log.warning("the oldest changes could not be deleted yet: %s", error)

    async def _settled(self, when: Sequence[Condition], then: Sequence[Put | Delete], batch: str) -> int:
        """The revision under which it is written."""
        settled = await self._answered(when, then)
        if settled.succeeded:
            return settled.header.revision
        found = settled.reads[0]
        if found and _running(found[0]).batch == batch:
            return found[0].revision
        at = found[0].revision if found else 0
        if Unchanged(self._layout.head, at) in when:
            raise self._no_session()
        raise StoreConflict(f"decided on another revision than {at}, where etcd is by now")

    async def _answered(self, when: Sequence[Condition], then: Sequence[Put | Delete]) -> TransactionResult:
        """How a transaction went. Without an answer it is asked for again: the condition makes that harmless, and the
        head says whether an earlier attempt came through. Raises `StoreUnavailable`.
        """
        left = MAX_WRITE_ATTEMPTS if self._open_etcd.has_one_member else MAX_WRITE_ATTEMPTS + 1
        while True:
            left -= 1
            try:
                return await self._committed(when, then, [Get(self._layout.head)])
            except EtcdUnreachable as error:
                if not left:
                    why = f"etcd does not answer, and may have taken it nevertheless: {error}"
                    raise StoreUnavailable(why) from None

    def _conditions(self, on: CatalogPosition) -> list[Condition]:
        """Nobody wrote meanwhile; and we are not taken for dead: others would keep by now what we decide about."""
        conditions: list[Condition] = [Unchanged(self._layout.head, on.head_revision)]
        if self._presence is not None:
            alive = self._presence.session_condition
            if alive is None:
                raise self._no_session()
            conditions.append(alive)
        return conditions

    def _no_session(self) -> StoreUnavailable:
        why = self._presence.trouble if self._presence is not None else ""
        return StoreUnavailable(f"{NO_SESSION}: {why}" if why else NO_SESSION)

    async def _committed(
        self, when: Sequence[Condition], then: Sequence[Put | Delete], look: Sequence[Get]
    ) -> TransactionResult:
        try:
            return await self._open_etcd.commit(when, then, look)
        except EtcdUnreachable:
            raise
        except EtcdError as error:
            raise StoreUnavailable(str(error), retry_after=5.0) from None

    def watch(self) -> AsyncIterator[FullState | Batch]:
        return self._feeds.watch()

    async def _whole(self) -> FullState:
        """Raises `StoreUnavailable` if the very first one can't be read.

        Whoever follows us later has something to show already, and must not end because etcd is away.
        """
        while True:
            try:
                whole = await self._reading.full_state(self._open_etcd.pages(self._layout.catalog))
            except EtcdError as error:
                if not self._read and not isinstance(error, RevisionCompacted):
                    raise StoreUnavailable(str(error)) from None
                _log.warning("the catalog can't be read anew yet: %s", error)
                await self._clock.sleep(1.0)
            else:
                self._read = True
                self._departures.load(whole.removal_revisions)
                return whole

    def _told(self, batch: Batch, heads: Sequence[Head]) -> None:
        for said in heads:
            self._trail.add(said)
        for change in batch.changes:
            if change.forgets_service:
                self._departures.remove([change.key.service])
            elif change.listing is None:
                self._departures.add([change.key.service])
        self._feeds.publish(batch)

    def _start_over(self) -> None:
        self._trail.is_loaded = False
        self._feeds.resync()

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        start = self._layout.log
        if service is not None and self._trail.is_loaded:
            start = self._trail.oldest(service) or prefix_end(start)
        found: list[RecordedChange] = []
        async with aclosing(self._reading.newest_changes(self._log_from(start))) as newest:
            while len(found) < limit:
                change = await anext(newest, None)
                if change is None:
                    break
                if service in (None, change.key.service) and id in (None, change.key.id):
                    found.append(change)
        return found

    async def _log_from(self, start: bytes) -> AsyncIterator[RangeResult]:
        """The entries of the log from a key on, newest first. Raises `StoreUnavailable`."""
        etcd, end = self._open_etcd, prefix_end(self._layout.log)
        while start < end:
            page = await self._asked(etcd.range(start, end, limit=LOG_PAGE_SIZE, descending=True))
            yield page
            if not page.more:
                break
            end = page.key_values[-1].key

    async def edits(self, kind: DocumentKind | None, name: str | None, limit: int) -> Sequence[RecordedEdit]:
        return await self._asked(self._edits.newest(self._open_etcd, kind, name, limit))

    def age(self) -> float:
        return self._following.age() if self._following is not None else 0.0

    def isolated_seconds(self) -> float:
        no_session = self._presence.seconds_without_session() if self._presence is not None else 0.0
        return max(no_session, self._inquiry.seconds_refused() if self._inquiry is not None else 0.0)

    def condition(self) -> Mapping[str, str]:
        troubles = (each.trouble for each in (self._following, self._presence, self._inquiry) if each is not None)
        told = dict(self._inquiry.condition()) if self._inquiry is not None else {}
        if self._presence is not None:
            told |= self._presence.condition()
        trouble = next(filter(None, troubles), "")
        return {**told, "trouble": trouble} if trouble else told

    async def close(self) -> None:
        if self._presence is not None:
            await self._presence.close()
        inquiry, self._inquiry = self._inquiry, None
        if inquiry is not None:
            await inquiry.close()
        following, self._following = self._following, None
        if following is not None:
            await following.close()
        async with self._writing:  # A write that is under way is bounded, and finds its answer.
            etcd, self._etcd = self._etcd, None
        if etcd is not None:
            await etcd.close()

    async def _asked(self, asking: Awaitable[T]) -> T:
        """What etcd answers. Raises `StoreUnavailable`."""
        try:
            return await asking
        except EtcdError as error:
            raise StoreUnavailable(str(error)) from None

    @property
    def _open_etcd(self) -> EtcdClient:
        if self._etcd is None:
            raise StoreUnavailable("the store is closed")
        return self._etcd

    @property
    def _open_following(self) -> CatalogFollower:
        if self._following is None:
            raise StoreUnavailable("the store is closed")
        return self._following


def _running(found: KeyValue) -> Head:
    """What the head says to a node that runs already: it serves reads on. Raises `StoreUnavailable`."""
    try:
        return decode_head(found)
    except StoreOpenFailed as refused:
        raise StoreUnavailable(str(refused), retry_after=5.0) from None
