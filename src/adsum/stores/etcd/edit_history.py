"""The history of documents in etcd. A batch writes one key for each document that it edits, with all edits of it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from adsum.core.catalog import documents
from adsum.core.catalog.documents import DocumentKind, RecordedEdit
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError
from adsum.etcd.values import Delete, Get, KeyValue
from adsum.stores.edit_log import EditRecord, recorded_edit
from adsum.stores.etcd.layout import Layout

EDITS_BETWEEN_TRIMS: Final = 100
"""Edits that a node writes between two trims. So history may exceed its bounds by that many for each node."""
MAX_KEYS_PER_TRANSACTION: Final = 100
"""Keys that one transaction reads or deletes. etcd accepts 128 operations by default."""

T = TypeVar("T")

_RECORDS: Final = msgspec.json.Decoder(list[EditRecord])

_log = logging.getLogger("adsum.store")


class EditHistory:
    """Reads and trims the history of documents. `Layout.parts` writes it with the batches."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._edits_since_trim = EDITS_BETWEEN_TRIMS
        """At first the bound, since the number of edits that earlier processes wrote is not known."""

    async def newest(
        self, etcd: EtcdClient, kinds: Collection[DocumentKind], name: str | None, limit: int
    ) -> list[RecordedEdit]:
        """Returns the newest edits, newest first. Raises `EtcdError`."""
        keys = await self._keys(etcd, kinds, name)
        edits: list[RecordedEdit] = []
        for chunk in _chunks(keys[: max(0, limit)]):
            result = await etcd.commit((), [Get(key.key) for key in chunk])
            edits += (edit for read in result.reads for key_value in read for edit in self._decode(key_value))
        return edits[: max(0, limit)]

    async def _keys(self, etcd: EtcdClient, kinds: Iterable[DocumentKind], name: str | None) -> list[KeyValue]:
        """Returns the keys of the edits of documents, without values, newest first."""
        keys: list[KeyValue] = []
        for kind in kinds:
            prefix = self._layout.edits + (f"{kind}/{name}/" if name is not None else f"{kind}/").encode()
            async for page in etcd.pages(prefix, keys_only=True):
                keys += page.key_values
        return sorted(keys, key=lambda key: key.revision, reverse=True)

    def _decode(self, key_value: KeyValue) -> list[RecordedEdit]:
        """Returns the edits of one key, newest first. Logs what can't be decoded, and leaves it out."""
        try:
            document = self._layout.parse_edit_key(key_value.key)
            records = reversed(_RECORDS.decode(key_value.value))
            return [recorded_edit(key_value.revision, document, record) for record in records]
        except ValueError as error:
            _log.warning("%s in etcd can't be read: %s", key_value.key.decode(errors="replace"), error)
            return []

    async def trim_after_write(self, count: int, etcd: EtcdClient) -> None:
        """Counts `count` written edits. After `EDITS_BETWEEN_TRIMS` of them it deletes the edits past the bounds.

        A failure is logged, and deletion is tried again after the next batch with edits.
        """
        self._edits_since_trim += count
        if self._edits_since_trim < EDITS_BETWEEN_TRIMS:
            return
        try:
            for chunk in _chunks(self._excess(await self._keys(etcd, [*DocumentKind], None))):
                await etcd.commit((), [Delete(key) for key in chunk])
        except EtcdError as error:
            _log.warning("the history of documents in etcd can't be trimmed yet: %s", error)
        else:
            self._edits_since_trim = 0

    def _excess(self, keys: Sequence[KeyValue]) -> list[bytes]:
        """Returns the keys that are past a bound, given all keys, newest first."""
        kept: dict[bytes, int] = {}
        excess = []
        for number, key in enumerate(keys):
            document = key.key.rpartition(b"/")[0]
            kept[document] = kept.get(document, 0) + 1
            if number >= documents.MAX_EDITS or kept[document] > documents.MAX_EDITS_PER_DOCUMENT:
                excess.append(key.key)
        return excess


def _chunks(keys: Sequence[T]) -> list[Sequence[T]]:
    """Splits keys into chunks that fit into a transaction."""
    starts = range(0, len(keys), MAX_KEYS_PER_TRANSACTION)
    return [keys[start : start + MAX_KEYS_PER_TRANSACTION] for start in starts]
