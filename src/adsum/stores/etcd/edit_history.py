"""History of what operators declared, in etcd: a key for each batch that edited a document, with all its edits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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
"""How many edits a node writes before it trims history: until then it may grow beyond its bounds by so many a node."""
MAX_KEYS_PER_TRANSACTION: Final = 100
"""Keys that one transaction reads or deletes; etcd takes 128 operations unless told otherwise."""

T = TypeVar("T")

_RECORDS: Final = msgspec.json.Decoder(list[EditRecord])

_log = logging.getLogger("adsum.store")


class EditHistory:
    """Reads and trims it. Batches write it: see `Layout.parts`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._untrimmed = EDITS_BETWEEN_TRIMS
        """At first it is not known what the nodes before left."""

    async def newest(
        self, etcd: EtcdClient, kind: DocumentKind | None, name: str | None, limit: int
    ) -> list[RecordedEdit]:
        """The newest edits, newest first. Raises `EtcdError`."""
        keys = await self._keys(etcd, [kind] if kind else [*DocumentKind], name)
        found: list[RecordedEdit] = []
        for some in _cut(keys[: max(0, limit)]):
            settled = await etcd.commit((), [Get(each.key) for each in some])
            found += (edit for read in settled.reads for each in read for edit in self._recorded(each))
        return found[: max(0, limit)]

    async def _keys(self, etcd: EtcdClient, kinds: Iterable[DocumentKind], name: str | None) -> list[KeyValue]:
        """The keys of the edits of documents, without values, newest first."""
        found: list[KeyValue] = []
        for kind in kinds:
            prefix = self._layout.edits + (f"{kind}/{name}/" if name is not None else f"{kind}/").encode()
            async for page in etcd.pages(prefix, keys_only=True):
                found += page.key_values
        return sorted(found, key=lambda each: each.revision, reverse=True)

    def _recorded(self, found: KeyValue) -> list[RecordedEdit]:
        """The edits of one key, newest first."""
        try:
            title = self._layout.parse_edit_key(found.key)
            return [recorded_edit(found.revision, title, each) for each in reversed(_RECORDS.decode(found.value))]
        except ValueError as error:
            _log.warning("%s in etcd can't be read: %s", found.key.decode(errors="replace"), error)
            return []

    async def trim_after_write(self, count: int, etcd: EtcdClient) -> None:
        """A batch wrote so many edits: now and then, delete those past the bounds.

        Never raises: the batch is written, and what stays is deleted another time.
        """
        self._untrimmed += count
        if self._untrimmed < EDITS_BETWEEN_TRIMS:
            return
        try:
            for some in _cut(self._excess(await self._keys(etcd, [*DocumentKind], None))):
                await etcd.commit((), [Delete(key) for key in some])
        except EtcdError as error:
            _log.warning("the history of routes in etcd can't be trimmed yet: %s", error)
        else:
            self._untrimmed = 0

    def _excess(self, keys: Sequence[KeyValue]) -> list[bytes]:
        """Of all keys, newest first, those that are past a bound."""
        kept: dict[bytes, int] = {}
        excess = []
        for number, each in enumerate(keys):
            document = each.key.rpartition(b"/")[0]
            kept[document] = kept.get(document, 0) + 1
            if number >= documents.MAX_EDITS or kept[document] > documents.MAX_EDITS_PER_DOCUMENT:
                excess.append(each.key)
        return excess


def _cut(keys: Sequence[T]) -> list[Sequence[T]]:
    """The keys in parts that one transaction can take."""
    return [keys[start : start + MAX_KEYS_PER_TRANSACTION] for start in range(0, len(keys), MAX_KEYS_PER_TRANSACTION)]
