"""Writes batches to etcd, one transaction for each part, and trims the history of earlier batches."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from adsum.core.catalog.changes import Batch
from adsum.core.errors import StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdUnreachable
from adsum.etcd.values import Condition, Delete, Get, KeyValue, Put, TransactionResult, Unchanged
from adsum.stores.etcd.catalog_decoder import CatalogPosition, decode_head
from adsum.stores.etcd.departed_services import DepartedServices
from adsum.stores.etcd.layout import MAX_OPERATIONS_PER_TRANSACTION, BatchPart, Head, Layout, LogEntryRecord
from adsum.stores.etcd.log_retention import LogRetention
from adsum.stores.etcd.membership import EtcdMembership

MAX_WRITE_ATTEMPTS: Final = 2
"""Attempts to write a transaction that gets no answer. Then the write fails.

With several members there is one more attempt, since each member has less time to answer."""
RETRY_AFTER: Final = 5.0
"""Seconds after which a client may try a write again that etcd refused."""
NO_SESSION: Final = "this node has no session with etcd; a new one is being made"

_log = logging.getLogger("adsum.store")


class BatchWriter:
    """Writes the parts of batches. Follows the keys of the log, so that the log can be trimmed without being read."""

    def __init__(self, layout: Layout) -> None:
        self.log_retention = LogRetention(layout)
        self.departed_services = DepartedServices()
        self._layout = layout

    async def load_log(self, etcd: EtcdClient) -> None:
        """Reads the keys of the log. Raises `EtcdError`."""
        pages = etcd.pages(self._layout.log, keys_only=True)
        self.log_retention.load([entry.key async for page in pages for entry in page.key_values])

    def follow(self, batch: Batch, heads: Sequence[Head]) -> None:
        """Takes note of a batch that any node wrote, given the heads of its parts."""
        for head in heads:
            self.log_retention.add(head)
        for change in batch.changes:
            if change.forgets_service:
                self.departed_services.remove([change.key.service])
            elif change.listing is None:
                self.departed_services.add([change.key.service])

    async def write_part(
        self,
        etcd: EtcdClient,
        membership: EtcdMembership | None,
        part: BatchPart,
        base: CatalogPosition,
        number: int,
        parts: int,
        note_head: Callable[[Head], None],
    ) -> CatalogPosition:
        """Writes part `number` of `parts` in one transaction, if the catalog is still at `base`.

        Calls `note_head` before, since the watch may be faster than the answer. Returns the new position. Raises
        `StoreConflict` and `StoreUnavailable`.
        """
        counts = {service: len(logged) for service, logged in part.log.items()}
        head = Head(
            base.head.epoch,
            secrets.token_hex(8),
            base.revision,
            sum(counts.values()),
            counts,
            number,
            parts,
            part.deletions,
            membership.id if membership is not None else "",
        )
        note_head(head)
        operations: list[Put | Delete] = [Put(self._layout.head, msgspec.json.encode(head)), *part.operations]
        for service, logged in part.log.items():
            key = self._layout.log_key(head.basis, service, len(logged))
            operations.append(Put(key, msgspec.json.encode(LogEntryRecord(logged, number, parts))))
        forgotten = self.departed_services.excess((*part.departed, *part.forgotten))
        operations += (Delete(self._layout.departure_key(service)) for service in forgotten)
        result = await self._commit_with_retries(etcd, self._conditions(base, membership), operations)
        revision = self._written_revision(result, base, head.batch, membership)
        self.log_retention.add(head)
        self.departed_services.remove((*forgotten, *part.forgotten))
        self.departed_services.add(part.departed)
        return CatalogPosition(revision, revision, head)

    async def trim_log(self, etcd: EtcdClient) -> None:
        """Deletes log entries beyond the bounds of history, if there are enough of them.

        A failure is logged. Then the log is read again before the next write, and trimmed later.
        """
        keys = self.log_retention.trim()
        try:
            for start in range(0, len(keys), MAX_OPERATIONS_PER_TRANSACTION):
                some = keys[start : start + MAX_OPERATIONS_PER_TRANSACTION]
                await etcd.commit([], [Delete(key) for key in some])
        except EtcdError as error:
            self.log_retention.is_loaded = False
            _log.warning("the oldest changes could not be deleted yet: %s", error)

    def _conditions(self, base: CatalogPosition, membership: EtcdMembership | None) -> list[Condition]:
        """Returns the conditions of a write: the head is unchanged, and the session of this node has not ended.

        Without its session other nodes may already keep what this node decided on.
        """
        conditions: list[Condition] = [Unchanged(self._layout.head, base.head_revision)]
        if membership is not None:
            session = membership.session_condition
            if session is None:
                raise _no_session(membership)
            conditions.append(session)
        return conditions

    async def _commit_with_retries(
        self, etcd: EtcdClient, conditions: Sequence[Condition], operations: Sequence[Put | Delete]
    ) -> TransactionResult:
        """Commits the transaction, and tries again while no answer comes. Raises `StoreUnavailable`.

        The condition on the head makes another attempt harmless: the transaction is applied at most once.
        """
        attempts = MAX_WRITE_ATTEMPTS if etcd.has_one_member else MAX_WRITE_ATTEMPTS + 1
        while True:
            attempts -= 1
            try:
                return await etcd.commit(conditions, operations, [Get(self._layout.head)])
            except EtcdUnreachable as error:
                if not attempts:
                    problem = f"etcd does not answer, and may have taken it nevertheless: {error}"
                    raise StoreUnavailable(problem) from None
            except EtcdError as error:
                raise StoreUnavailable(str(error), retry_after=RETRY_AFTER) from None

    def _written_revision(
        self,
        result: TransactionResult,
        base: CatalogPosition,
        batch: str,
        membership: EtcdMembership | None,
    ) -> int:
        """Returns the revision under which the batch is written, by this attempt or an earlier one.

        Raises `StoreConflict` and `StoreUnavailable` if it is not written.
        """
        if result.succeeded:
            return result.header.revision
        heads = result.reads[0]
        if heads and decode_head_while_running(heads[0]).batch == batch:
            return heads[0].revision
        revision = heads[0].revision if heads else 0
        if revision == base.head_revision:  # So the condition on the session did not hold.
            raise _no_session(membership)
        raise conflict(base.revision, revision)


def conflict(base_revision: int, revision: int) -> StoreConflict:
    """Returns the error of a decision on `base_revision` while etcd is at `revision`."""
    return StoreConflict(f"decided on revision {base_revision}, but etcd is at {revision}")


def decode_head_while_running(key_value: KeyValue) -> Head:
    """Returns the head, for a node that is running. Raises `StoreUnavailable`, so that the node still answers reads."""
    try:
        return decode_head(key_value)
    except StoreOpenFailed as error:
        raise StoreUnavailable(str(error), retry_after=RETRY_AFTER) from None


def _no_session(membership: EtcdMembership | None) -> StoreUnavailable:
    reason = membership.trouble if membership is not None else ""
    return StoreUnavailable(f"{NO_SESSION}: {reason}" if reason else NO_SESSION)
